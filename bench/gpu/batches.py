"""Batches in NumPy, run through a backend library: everything is copied to its memory, called, and copied back."""

import copy

import numpy as np

import abi


def to_bits(values, dtype):
    """float values as a dtype's own array: f32, f16, or bf16 as uint16, rounded to nearest even."""
    values = np.asarray(values, np.float32)
    if dtype == "f32":
        return values
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def to_floats(array, dtype):
    if dtype == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32).reshape(array.shape)
    return array.astype(np.float32)


class Logits:
    """(rows, columns) logits in a dtype. `offset` bytes into its memory, `stride` columns from row to row."""

    def __init__(self, values, dtype, rows_of=None, vocab_size=None, offset=0, stride=None):
        self.rows, self.columns = values.shape
        self.dtype, self.rows_of, self.offset = dtype, rows_of, offset
        self.stride = stride or self.columns
        self.vocab_size = vocab_size or self.columns
        self.bits = np.zeros((self.rows, self.stride), to_bits([0], dtype).dtype)
        self.bits[:, : self.columns] = to_bits(values, dtype)

    def repeated(self, rows):
        """So many rows: these in turn."""
        found = copy.copy(self)
        found.rows, found.bits = rows, np.resize(self.bits, (rows, self.stride))
        return found


class Memory:
    """Device copies of host arrays, freed together. Outputs come back by `read`."""

    def __init__(self, library):
        self.library = library
        self.blocks = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for data in self.blocks:
            self.library.release(data)

    def write(self, array, offset=0):
        if array is None:
            return None
        array = np.ascontiguousarray(array)
        data = self.library.allocate(array.nbytes + offset)
        self.blocks.append(data)
        if array.nbytes:
            self.library.call("copy", data + offset, array.ctypes.data, array.nbytes, abi.HOST_TO_DEVICE)
        self.library.call("synchronize")
        return data + offset

    def read(self, data, like):
        out = np.empty_like(like)
        if out.nbytes:
            self.library.call("copy", out.ctypes.data, data, out.nbytes, abi.DEVICE_TO_HOST)
        self.library.call("synchronize")
        return out


def scores(memory, view):
    """A view: None, (N) log-probs, or Logits."""
    if view is None:
        return abi.Scores()
    if not isinstance(view, Logits):
        return abi.Scores(level=abi.LOG_PROBS, log_probs=memory.write(np.asarray(view, np.float32)))
    data = memory.write(view.bits, view.offset)
    tensor = abi.Tensor.of(data, view.dtype, view.rows, view.columns, view.stride)
    rows = None if view.rows_of is None else memory.write(np.asarray(view.rows_of, np.int32))
    return abi.Scores(level=abi.LOGITS, logits=tensor, rows=rows, vocab_size=view.vocab_size)


POISON = np.float32(-12345.0)


def _f32(values):
    return None if values is None else np.asarray(values, np.float32)


def policy_loss(library, objective, *, student, cu_seqlens, advantages, teacher=None, contrast=None, token_ids=None,
                completion_mask=None, span_mask=None, old=None, ref=None, sampler=None, in_place=False, gradient=True,
                loss_scale=1.0, skip_zero_rows=False, clear_other_rows=True, rows=None):  # fmt: skip
    """The results as a dict of NumPy arrays: log_probs, teacher_log_probs, token_advantages, evidence_weights,
    gradient_log_probs, gradient_logits (float32), gradient_bits, stats. Outputs are poisoned before the call. A failed
    call's exception carries the results in `results`. `rows`: a list that gets what the library says of the rows' kernel
    before the call and after it."""
    cu = np.asarray(cu_seqlens, np.int32)
    tokens, sequences = int(len(token_ids) if token_ids is not None else len(student)), len(cu) - 1
    advantages = _f32(advantages)
    with Memory(library) as m:
        batch = abi.PolicyBatch(
            tokens=tokens, sequences=sequences, student=scores(m, student), teacher=scores(m, teacher),
            contrast=scores(m, contrast), token_ids=m.write(None if token_ids is None else np.asarray(token_ids, np.int32)),
            cu_seqlens=m.write(cu), completion_mask=m.write(completion_mask), span_mask=m.write(span_mask),
            advantages=m.write(advantages), advantages_per_token=len(advantages) != sequences,
            old_log_probs=m.write(_f32(old)), ref_log_probs=m.write(_f32(ref)), sampler_log_probs=m.write(_f32(sampler)),
        )  # fmt: skip
        poison = np.full(tokens, POISON)
        names = ["log_probs", "token_advantages", "evidence_weights", "gradient_log_probs"]
        names += ["teacher_log_probs"] if teacher is not None else []
        places = {name: m.write(poison) for name in names}
        stats = np.full(len(abi.STATS), -12345.0)
        out = abi.PolicyOutputs(loss_scale=loss_scale, stats=m.write(stats), skip_zero_rows=skip_zero_rows,
                                clear_other_rows=clear_other_rows, **places)  # fmt: skip
        bits = None
        # Beside a student of log-probs a place for the gradient of logits must be left alone.
        shaped = next((view for view in (student, teacher) if isinstance(view, Logits)), None)
        if shaped is not None and gradient:
            bits = shaped.bits if in_place else to_bits(np.full(shaped.bits.shape, POISON), shaped.dtype)
            data = batch.student.logits.data if in_place else m.write(bits, shaped.offset)
            out.gradient_logits = abi.Tensor.of(data, shaped.dtype, shaped.rows, shaped.columns, shaped.stride)
        failure = None
        ask = lambda: rows is not None and rows.append(library.policy_loss_rows(batch, objective, out))
        try:
            ask()
            library.policy_loss(batch, objective, out)
            ask()
        except abi.RlsdError as error:
            failure = error
        results = {name: m.read(place, poison) for name, place in places.items()}
        results["stats"] = dict(zip(abi.STATS, m.read(out.stats, stats)))
        if bits is not None:
            results["gradient_bits"] = m.read(out.gradient_logits.data, bits)
            results["gradient_logits"] = to_floats(results["gradient_bits"], shaped.dtype)[:, : shaped.columns]
            assert shaped is student or np.array_equal(results["gradient_bits"], bits), "a gradient of log-probs"
    if failure is None:
        return results
    failure.results = results
    raise failure


def token_log_probs(library, view, token_ids, *, completion_mask=None, temperature=1.0, softcap=0.0, rounding=False,
                    entropy=True):  # fmt: skip
    ids = np.asarray(token_ids, np.int32)
    with Memory(library) as m:
        poison = np.full(len(ids), POISON)
        args = abi.TokenLogProbsArgs(
            tokens=len(ids), scores=scores(m, view), token_ids=m.write(ids), completion_mask=m.write(completion_mask),
            temperature=temperature, logit_softcap=softcap, logit_rounding_bf16=rounding, log_probs=m.write(poison),
            entropy=m.write(poison) if entropy else None,
        )  # fmt: skip
        library.token_log_probs(args)
        found = {"log_probs": m.read(args.log_probs, poison)}
        if entropy:
            found["entropy"] = m.read(args.entropy, poison)
        return found
