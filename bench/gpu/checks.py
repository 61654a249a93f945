"""What a backend must do: the published vectors, properties over random batches, and the edges of docs/maths.md.

    python3 bench/gpu/checks.py LIBRARY [NAME ...] [--after NAME]

Each check is a function of a library that raises AssertionError; `run` calls them all. No GPU is needed: over
librlsd_cpu.so they show that the harness and the CPU backend agree.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import traceback

import numpy as np

import abi
import batches
import reference
from batches import Logits

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE / "../../test/fixtures/vectors"
ROUNDING = {"f32": 2e-6, "f16": 1e-3, "bf16": 8e-3}
VOCABULARIES = [1, 2, 3, 7, 8, 9, 255, 1000, 2047, 2048, 2049, 32001, 50257]
WIDE = [128256, 151936, 262144]


def close(got, expected, tolerance, floor=1e-6, what=""):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    scale = max(np.max(np.abs(expected), initial=0.0), floor)
    error = np.max(np.abs(got - expected), initial=0.0) / scale
    assert error <= tolerance, f"{what}: relative error {error:.3g}, tolerance {tolerance:.3g}"


def numbers(tensor):
    return np.array([float(x) for x in tensor["data"]]).reshape(tensor["shape"])


def objective_of(options):
    surrogate = {"grpo": "ppo-clip", "gspo_token": "gspo-token", "cispo": "cispo"}[options["lossType"]]
    reduction = {"token-mean": "token-mean", "seq-mean-token-mean": "sequence-mean"}[options["aggregation"]]
    return abi.objective(
        surrogate=surrogate, reduction=reduction, clip_low=options["clipRatioLow"], clip_high=options["clipRatioHigh"],
        dual_clip=options["clipRatioDual"], kl_coef=options["klCoef"], temperature=options["temperature"],
        credit_mix=options["lambda"], evidence_clip=options["clipRange"], negative_only=options["negativeOnly"],
    )  # fmt: skip


def vector(library, path, dtype="f32", in_place=False):
    """One published case; masked rows are poisoned."""
    case = json.loads(path.read_text())
    inputs, expected = case["inputs"], case["expected"]
    mask = numbers(inputs["mask"]).astype(np.uint8)
    sequences, length = mask.shape
    flat = mask.ravel()
    columns = inputs["studentLogits"]["shape"][-1]

    def view(name):
        values = numbers(inputs[name]).reshape(-1, columns)
        values[flat == 0] = np.nan
        return Logits(values, dtype)

    def log_probs(name):
        values = numbers(inputs[name]).ravel()
        values[flat == 0] = np.inf
        return values

    ids = numbers(inputs["tokenIds"]).astype(np.int32).ravel()
    ids[flat == 0] = -7
    span = None if inputs["spanMask"] is None else numbers(inputs["spanMask"]).astype(np.uint8).ravel()
    got = batches.policy_loss(
        library, objective_of(case["options"]), student=view("studentLogits"), teacher=view("teacherLogits"),
        token_ids=ids, cu_seqlens=np.arange(sequences + 1) * length, advantages=numbers(expected["groupAdvantages"]),
        completion_mask=flat, span_mask=span, old=log_probs("oldLogprobs"), ref=log_probs("refLogprobs"),
        in_place=in_place,
    )  # fmt: skip
    masked = lambda name: np.where(flat == 1, numbers(expected[name]).ravel(), 0.0)
    advantages = masked("tokenAdvantages")
    close(got["log_probs"], masked("studentLogprobs"), 1e-5, what="log-probs")
    close(got["teacher_log_probs"], masked("teacherLogprobs"), 1e-5, what="teacher log-probs")
    close(got["token_advantages"], advantages, 2e-5, what="token advantages")
    close(got["stats"]["loss"], expected["loss"], 2e-5, np.max(np.abs(advantages), initial=1e-6), "loss")
    close(got["gradient_log_probs"], masked("dLogprobs"), 2e-5, what="dL/dlogP")
    close(got["gradient_logits"].ravel(), numbers(expected["dStudentLogits"]).ravel(), 5e-5, what="dL/dlogits")


def check_vectors(library):
    for path in sorted(VECTORS.glob("case-*.json")):
        for in_place in (False, True):
            vector(library, path, in_place=in_place)


def random_batch(seed, tokens, columns, dtype, sequences=3, spread=2.0, peaked=False, **layout):
    """A batch with masked tokens, an empty sequence, per-sequence advantages of both signs and 0."""
    rng = np.random.default_rng(seed)
    cut = np.sort(rng.integers(0, tokens + 1, sequences))
    cu = np.concatenate([[0], cut, [tokens]]).astype(np.int32)
    values = spread * rng.standard_normal((tokens, columns))
    ids = rng.integers(0, columns, tokens).astype(np.int32)
    if peaked:
        values[np.arange(tokens), ids] += 18.0
    teacher = values + 0.3 * rng.standard_normal((tokens, columns))
    mask = (rng.random(tokens) > 0.2).astype(np.uint8)
    log_p = -2 + 0.3 * rng.standard_normal((3, tokens))
    return dict(
        student=Logits(values, dtype, **layout), teacher=Logits(teacher, dtype), token_ids=ids, cu_seqlens=cu,
        advantages=rng.choice([-1.3, 0.7, 0.0, 1.1], sequences + 1), completion_mask=mask, old=log_p[0], ref=log_p[1],
        sampler=log_p[2],
    )  # fmt: skip


def expect_rows(got, batch, objective, loss_scale=1.0):
    """log-probs, entropy and gradient rows against float64, given the call's own dL/dlogP."""
    student, mask = batch["student"], batch.get("completion_mask")
    values = batches.to_floats(student.bits, student.dtype)[:, : student.vocab_size]
    others = batch["teacher"]
    teacher = batches.to_floats(others.bits, others.dtype)[:, : others.vocab_size]
    options = dict(temperature=objective.temperature, softcap=objective.logit_softcap,
                   rounding=bool(objective.logit_rounding_bf16))  # fmt: skip
    for i, target in enumerate(batch["token_ids"]):
        row = i if student.rows_of is None else student.rows_of[i]
        gradient = got["gradient_logits"][row]
        if mask is not None and mask[i] == 0:
            for name in ("log_probs", "teacher_log_probs", "token_advantages", "evidence_weights", "gradient_log_probs"):
                assert got[name][i] == 0.0, f"masked {name}[{i}] is {got[name][i]}"
            assert not np.any(gradient), f"masked gradient row {row}"
            continue
        log_p, _, _, _ = reference.softmax_row(values[row], target, **options)
        close(got["log_probs"][i], log_p, 1e-5, 1.0, f"log-prob {i}")
        close(got["teacher_log_probs"][i], reference.softmax_row(teacher[i], target, **options)[0], 1e-5, 1.0,
              f"teacher log-prob {i}")  # fmt: skip
        weight = objective.entropy_coef * token_weight(batch, objective, i) * loss_scale
        expected = reference.gradient_row(values[row], target, float(got["gradient_log_probs"][i]), weight, **options)
        tolerance = max(ROUNDING[student.dtype], 2e-5)
        close(gradient[: student.vocab_size], expected, tolerance, 1e-30, f"gradient row {row}")
        without = np.arange(student.vocab_size) != target
        close(gradient[: student.vocab_size][without], expected[without], tolerance, 1e-30, f"gradient row {row} but y")
        assert not np.any(gradient[student.vocab_size :]), "padding has no gradient"


def token_weight(batch, objective, i):
    mask = batch.get("completion_mask")
    count = len(batch["token_ids"]) if mask is None else int(np.sum(mask))
    assert objective.reduction == abi.REDUCTIONS.index("token-mean")
    return 1.0 / count


OBJECTIVES = {
    "ppo-clip": dict(credit_mix=1.0),
    "kl and entropy": dict(kl_coef=0.1, entropy_coef=0.05),
    "temperature": dict(temperature=0.7),
    "softcap": dict(logit_softcap=3.0, temperature=1.3),
    "softcap, rounding, entropy": dict(logit_softcap=3.0, logit_rounding_bf16=1, entropy_coef=0.1),
    "gspo-token": dict(surrogate="gspo-token"),
    "gmpo": dict(surrogate="gmpo", clip_low=0.4, clip_high=0.4),
    "luspo": dict(surrogate="luspo"),
    "cispo": dict(surrogate="cispo"),
    "sapo": dict(surrogate="sapo"),
    "normalised credit": dict(normalize_sequence=1, credit_mix=1.0),
    "sequence correction": dict(importance="sequence-truncate"),
    "old student, negative only, pessimistic": dict(student_source_old=1, negative_only=1, pessimistic=1),
}


def check_objectives(library):
    """dL/dlogP of the logits level is that of the log-prob level on the same log-probs; rows are float64's."""
    for seed, (name, fields) in enumerate(OBJECTIVES.items()):
        objective = abi.objective(**fields)
        batch = random_batch(seed, 12, 33, "f32")
        got = batches.policy_loss(library, objective, **batch)
        expect_rows(got, batch, objective)
        plain = abi.objective(**{**fields, "entropy_coef": 0.0})
        for teacher in (got["teacher_log_probs"], batch["teacher"]):
            again = batches.policy_loss(library, plain, **dict(batch, student=got["log_probs"], teacher=teacher))
            for key in ("token_advantages", "evidence_weights", "gradient_log_probs"):
                assert np.array_equal(again[key], got[key]), f"{name}: {key} differs between the levels"


def check_vocabularies(library, vocabularies=VOCABULARIES):
    """Every width, dtype and alignment that a kernel cuts rows by."""
    objective = abi.objective(credit_mix=1.0)
    for columns in vocabularies:
        for dtype in abi.DTYPES:
            batch = random_batch(columns, 3, columns, dtype)
            scale = 2.0**14 if dtype == "f16" else 1.0
            got = batches.policy_loss(library, objective, loss_scale=scale, **batch)
            expect_rows(got, batch, objective)


def check_wide_rows(library):
    """Rows of real vocabularies: the only ones that a cluster of blocks shares. Two rows of each."""
    objective = abi.objective(credit_mix=1.0)
    for columns in WIDE:
        for dtype in abi.DTYPES:
            batch = random_batch(columns, 2, columns, dtype, sequences=1)
            batch.update(completion_mask=None, advantages=[-1.0, 1.0], old=None)
            scale = 2.0**14 if dtype == "f16" else 1.0
            expect_rows(batches.policy_loss(library, objective, loss_scale=scale, **batch), batch, objective)


def check_targets(library):
    """A confident target in each part of a row that loops treat in their own way: full turns, what is left of a turn, the
    vector that V cuts. Where one is not left out of the sums of its row, log P is far off."""
    columns, vocabulary = 20000, 19997  # 2499 whole vectors, 9 or 10 for each thread of a block
    targets = [0, 2047, 2048, 8191, 8192, 16383, 16384, 18431, 18432, 19990, 19991, 19996]
    objective = abi.objective(credit_mix=1.0)
    for dtype in abi.DTYPES:
        batch = random_batch(30, len(targets), columns, dtype, vocab_size=vocabulary)
        values = batches.to_floats(batch["student"].bits, dtype)
        values[np.arange(len(targets)), targets] += 18.0
        batch.update(student=Logits(values, dtype, vocab_size=vocabulary),
                     teacher=Logits(values - 1, dtype, vocab_size=vocabulary),
                     token_ids=np.array(targets, np.int32), completion_mask=None, old=None)  # fmt: skip
        scale = 2.0**14 if dtype == "f16" else 1.0
        expect_rows(batches.policy_loss(library, objective, loss_scale=scale, **batch), batch, objective)


def check_too_wide_rows(library):
    """Rows that no cluster keeps, of a width that no vector divides as well."""
    for columns in (1_000_000, 1_000_003):
        for dtype in ("f32", "bf16"):  # most of such a gradient is below what f16 holds
            batch = random_batch(columns, 2, columns, dtype, sequences=1)
            batch.update(completion_mask=None, advantages=[-1.0, 1.0], old=None)
            objective = abi.objective(credit_mix=1.0)
            expect_rows(batches.policy_loss(library, objective, **batch), batch, objective)


def check_mixed_dtypes(library):
    """Student and teacher of every two dtypes."""
    objective = abi.objective(credit_mix=1.0)
    for student in abi.DTYPES:
        for teacher in abi.DTYPES:
            batch = random_batch(17, 4, 520, student)
            values = batches.to_floats(batch["teacher"].bits, student)
            batch["teacher"] = Logits(values, teacher)
            scale = 2.0**14 if student == "f16" else 1.0
            expect_rows(batches.policy_loss(library, objective, loss_scale=scale, **batch), batch, objective)


def check_alignments(library):
    """Rows that start off a multiple of 16 bytes, rows farther apart than they are long, padding columns."""
    objective = abi.objective(credit_mix=1.0)
    for dtype, width in abi.WIDTH.items():
        for layout in (dict(offset=width), dict(stride=45), dict(stride=48), dict(vocab_size=37), dict(vocab_size=1),
                       dict(offset=16, stride=56, vocab_size=40)):  # fmt: skip
            batch = random_batch(5, 6, 41, dtype, **layout)
            batch["token_ids"] %= layout.get("vocab_size", 41)
            batch["teacher"] = Logits(batches.to_floats(batch["teacher"].bits, dtype), dtype)
            got = batches.policy_loss(library, objective, **batch)
            teacher_all = dict(batch, teacher=batch["teacher"])
            expect_rows(got, teacher_all, objective)


def check_in_place(library):
    """The same bits over the logits as beside them."""
    for dtype in abi.DTYPES:
        for fields in ({}, dict(surrogate="gspo-token"), dict(entropy_coef=0.1, logit_softcap=4.0)):
            batch = random_batch(8, 9, 300, dtype)
            objective = abi.objective(**fields)
            fresh = batches.policy_loss(library, objective, **batch)
            over = batches.policy_loss(library, objective, in_place=True, **batch)
            assert np.array_equal(fresh["gradient_bits"], over["gradient_bits"]), "in place differs"


def check_repeats(library):
    """Same input, same bits."""
    batch = random_batch(9, 40, 1000, "bf16")
    first = batches.policy_loss(library, abi.objective(), **batch)
    second = batches.policy_loss(library, abi.objective(), **batch)
    for key, value in first.items():
        if key != "stats":
            assert np.array_equal(value, second[key]), key
    for key, value in first["stats"].items():
        assert value == second["stats"][key] or np.isnan(value), key


def check_waves(library):
    """More rows than a device holds at a time, copies of a few: each has its original's bits, whatever runs beside it."""
    kinds = 5
    objective = abi.objective(credit_mix=1.0)
    for columns, in_place in ((151936, True), (2000, False), (2000, True), (2003, True)):
        few = dict(random_batch(columns, kinds, columns, "bf16", sequences=0), completion_mask=None, old=None,
                   ref=None, sampler=None, advantages=[-1.0])  # fmt: skip
        few["student"].bits[3, few["token_ids"][3]] = batches.to_bits([-60.0], "bf16")[0]  # it is summed a second time
        asked = []
        batches.policy_loss(library, objective, rows=asked, **few)
        at_once = asked[0]["at once"] if asked[0] else 0
        tokens = 1600 if columns < 10_000 else 4 * max(at_once, 4) + 3
        repeats = math.ceil(tokens / kinds)
        many = dict(few, cu_seqlens=[0, tokens], token_ids=np.tile(few["token_ids"], repeats)[:tokens],
                    completion_mask=(np.arange(tokens) % 7 != 6).astype(np.uint8))  # fmt: skip
        for view in ("student", "teacher"):
            many[view] = few[view].repeated(tokens)
        got = batches.policy_loss(library, objective, in_place=in_place, **many)
        expect_rows({name: values[:kinds] for name, values in got.items() if name != "stats"}, few, objective)
        for kind in range(kinds):
            read = many["completion_mask"][kind::kinds] == 1
            for name in ("gradient_bits", "log_probs", "teacher_log_probs", "evidence_weights", "gradient_log_probs"):
                same = np.where(read.reshape(-1, *[1] * (got[name].ndim - 1)), got[name][kind], 0)
                assert np.array_equal(got[name][kind::kinds], same), f"{columns} columns: {name} of copies of row {kind}"


def check_equal_teacher(library):
    """A teacher with the student's own logits, at another alignment: w is exactly 1, also where blocks share a row."""
    for tokens, columns in ((8, 517), (2, 151936)):
        for dtype, width in abi.WIDTH.items():
            batch = random_batch(10, tokens, columns, dtype)
            values = batches.to_floats(batch["student"].bits, dtype)
            for layout in (dict(offset=width, stride=columns + 6), {}):
                batch["teacher"] = Logits(values, dtype, **layout)
                got = batches.policy_loss(library, abi.objective(credit_mix=1.0), **batch)
                assert np.array_equal(got["log_probs"], got["teacher_log_probs"])
                assert np.all(got["evidence_weights"][batch["completion_mask"] == 1] == 1.0)


def check_rows_argument(library):
    """Rows in any order, rows that no token names, `clear_other_rows`."""
    for clear in (True, False):
        rng = np.random.default_rng(11)
        values = rng.standard_normal((9, 20))
        rows_of = np.array([7, 0, 3, 5], np.int32)
        batch = dict(
            student=Logits(values, "f32", rows_of=rows_of), teacher=Logits(values[:4] * 0.9, "f32"),
            token_ids=np.array([1, 2, 3, 4], np.int32), cu_seqlens=[0, 2, 4], advantages=[1.0, -1.0],
        )  # fmt: skip
        objective = abi.objective()
        got = batches.policy_loss(library, objective, clear_other_rows=clear, **batch)
        expect_rows(got, batch, objective)
        others = np.setdiff1d(np.arange(9), rows_of)
        assert np.all(got["gradient_logits"][others] == (0.0 if clear else batches.POISON))


def check_extreme_rows(library):
    """Confident and hopeless tokens, -inf logits, large common offsets: float64's log-probs and gradients."""
    v = 64
    rows = np.zeros((7, v))
    rows[0, 5] = 30.0  # confident: log P of -6e-12
    rows[1, :] = 0.0
    rows[1, 6] = 60.0  # hopeless target, anchored at the maximum
    rows[2, 1:] = -np.inf  # one logit left
    rows[3, ::2] = -np.inf
    rows[4, :] = 1e4  # common offset
    rows[4, 3] = 1e4 + 2
    rows[5, :] = -1e4
    rows[6] = np.linspace(-90, 90, v)
    ids = np.array([5, 5, 0, 1, 3, 9, 2], np.int32)
    batch = dict(student=Logits(rows, "f32"), teacher=Logits(np.nan_to_num(rows, neginf=-50.0), "f32"), token_ids=ids,
                 cu_seqlens=[0, 7], advantages=[-1.0])  # fmt: skip
    objective = abi.objective(dual_clip=np.inf)
    got = batches.policy_loss(library, objective, **batch)
    for i, target in enumerate(ids):
        log_p = reference.softmax_row(rows[i], target)[0]
        assert got["log_probs"][i] <= 0.0
        close(got["log_probs"][i], log_p, 1e-5, 1.0, f"log-prob {i}")
        expected = reference.gradient_row(rows[i], target, float(got["gradient_log_probs"][i]))
        close(got["gradient_logits"][i], expected, 2e-5, 1e-30, f"gradient {i}")
        assert np.all(got["gradient_logits"][i][np.isneginf(rows[i])] == 0.0)
    close(got["log_probs"][0], -np.log1p((v - 1) * np.exp(-30.0)), 1e-5, 1e-30, "confident")


def expect_failure(code, call, index=None, words=""):
    try:
        call()
    except abi.RlsdError as error:
        assert error.code == code, f"{error.code}: {error}"
        assert index is None or error.index == index, f"index {error.index}, expected {index}: {error}"
        assert words in str(error), str(error)
        return error
    raise AssertionError(f"expected {code}")


def check_bad_rows(library):
    """NaN, +inf, no finite logit, -inf at the target: out of the loss, gradient 0, counted, reported or skipped."""
    batch = random_batch(12, 8, 50, "f32")
    batch["completion_mask"] = np.ones(8, np.uint8)
    bits = batch["student"].bits
    bits[2, 7] = np.nan
    bits[3, 7] = np.inf
    bits[5, :] = -np.inf
    bits[6, batch["token_ids"][6]] = -np.inf
    error = expect_failure("NON_FINITE", lambda: batches.policy_loss(library, abi.objective(), **batch), 2, "(4 in all)")
    skipped = batches.policy_loss(library, abi.objective(non_finite_skip=1), **batch)
    for got in (error.results, skipped):
        assert got["stats"]["nonFiniteRows"] == 4
        for row in (2, 3, 5, 6):
            assert not np.any(got["gradient_logits"][row]) and got["gradient_log_probs"][row] == 0.0
        assert np.isfinite(got["stats"]["loss"])
    assert np.array_equal(error.results["gradient_bits"], skipped["gradient_bits"])


def check_refusals(library):
    """Every wrong argument is named, and nothing is written."""
    def expect(words, index=None, **changes):
        batch = dict(random_batch(13, 8, 20, "f32"), completion_mask=None, cu_seqlens=[0, 3, 8], advantages=[1.0, -1.0])
        batch.update(changes)
        error = expect_failure("INVALID_ARGUMENT", lambda: batches.policy_loss(library, abi.objective(), **batch), index, words)
        for name, values in error.results.items():
            if name not in ("stats", "gradient_bits", "gradient_logits"):
                assert np.all(values == batches.POISON), f"{words}: {name} was written"
        if "gradient_logits" in error.results:
            assert np.all(error.results["gradient_logits"] == batches.POISON), f"{words}: the gradient was written"

    ids = np.arange(8, dtype=np.int32)
    mask = np.ones(8, np.uint8)
    expect("cuSeqlens[0] to be 0", 0, cu_seqlens=[1, 3, 8])
    expect("ascend but cuSeqlens[2] is 2, after 3", 2, cu_seqlens=[0, 3, 2])
    expect("end at N = 8 but it ends at 7", 2, cu_seqlens=[0, 3, 7])
    expect("completionMask[4] is 2", 4, completion_mask=np.where(ids == 4, 2, mask).astype(np.uint8))
    expect("spanMask[5] is 9", 5, span_mask=np.where(ids == 5, 9, mask).astype(np.uint8))
    expect("advantages[1] is", 1, advantages=[1.0, np.nan])
    expect("tokenIds[3] is 20", 3, token_ids=np.where(ids == 3, 20, ids))
    expect("tokenIds[0] is -1", 0, token_ids=np.where(ids == 0, -1, ids))
    values = np.zeros((8, 20))
    expect("student.rows[6] is 8", 6, student=Logits(values, "f32", rows_of=np.where(ids == 6, 8, ids)))
    expect("student.rows[1] and [4] are both 1", 4, student=Logits(values, "f32", rows_of=np.where(ids == 4, 1, ids)))
    expect("teacher.rows[7] is -2", 7, teacher=Logits(values, "f32", rows_of=np.where(ids == 7, -2, ids)))
    library.context.workspace += 8
    expect("a workspace at a multiple of 16 bytes")
    library.context.workspace -= 8


def check_log_probs_level(library):
    """Empty batches and sequences, credit alone, infinities, many sequences."""
    empty = batches.policy_loss(library, abi.objective(), student=np.zeros(0), cu_seqlens=[0, 0], advantages=[1.0])
    assert empty["stats"]["loss"] == 0.0 and empty["stats"]["tokens"] == 0
    rng = np.random.default_rng(14)
    n, b = 5000, 700
    cu = np.concatenate([[0], np.sort(rng.integers(0, n, b - 1)), [n]])
    student = -2 * rng.random(n)
    got = batches.policy_loss(library, abi.objective(), student=student, teacher=student + 0.1 * rng.standard_normal(n),
                              cu_seqlens=cu, advantages=rng.standard_normal(b), old=student + 0.05)  # fmt: skip
    assert got["stats"]["tokens"] == n and got["stats"]["sequences"] == b
    weights = got["evidence_weights"]
    assert np.all((weights >= np.float32(0.8)) & (weights <= np.float32(1.2)))
    nan_teacher = np.full(3, np.nan)
    got = batches.policy_loss(library, abi.objective(), student=[-1, -2, -3], teacher=nan_teacher, cu_seqlens=[0, 3],
                              advantages=[1.0])  # fmt: skip
    assert got["stats"]["nanTeacherRows"] == 3 and np.all(got["evidence_weights"] == 1.0)


def check_stale_workspace(library):
    """Whatever the workspace held before, the bits are the same; log-probs alone take one kernel and clear nothing."""
    rng = np.random.default_rng(15)
    n = 3000
    tokens = dict(student=-2 * rng.random(n), teacher=-2 * rng.random(n), cu_seqlens=[0, 100, n], advantages=[1.0, -1.0])
    for batch in (tokens, random_batch(16, 40, 1000, "bf16")):
        wanted = batches.policy_loss(library, abi.objective(), **batch)
        size = library.context.workspace_bytes
        for stale in (np.zeros(size, np.uint8), np.full(size, 255, np.uint8), rng.integers(0, 256, size, np.uint8)):
            if size > 0:
                library.call("copy", library.context.workspace, stale.ctypes.data, size, abi.HOST_TO_DEVICE)
            got = batches.policy_loss(library, abi.objective(), **batch)
            for key in ("gradient_log_probs", "evidence_weights"):
                assert np.array_equal(got[key], wanted[key]), key
            assert got["stats"]["loss"] == wanted["stats"]["loss"]
    trace = os.environ.get("RLSD_EMULATION_TRACE")  # a device does not tell
    if trace is not None:
        before = len(pathlib.Path(trace).read_text())
        batches.policy_loss(library, abi.objective(), **tokens)
        assert pathlib.Path(trace).read_text()[before:] == "launch\n"


def check_token_shares(library):
    """Sequences longer and shorter than a block's share of the tokens, masks that start anywhere, both kinds of mean."""
    for seed, (cu, reduction) in enumerate(
        [([0, 70001], "token-mean"), ([0, 3, 3, 40000, 40001, 70001], "sequence-mean"), ([0, 5], "sequence-mean")]
    ):
        rng = np.random.default_rng(20 + seed)
        n, b = cu[-1], len(cu) - 1
        old = (-2 * rng.random(n)).astype(np.float32)
        student = (old + 0.3 * rng.standard_normal(n)).astype(np.float32)
        teacher = (student + 0.3 * rng.standard_normal(n)).astype(np.float32)
        mask = (rng.random(n) > 0.3).astype(np.uint8)
        sequence = np.repeat(np.arange(b), np.diff(cu))
        lengths = np.bincount(sequence, mask, b)
        for per_token in (False, True):
            advantages = rng.choice([-1.5, 0.0, 0.75], n if per_token else b).astype(np.float32)
            spread = advantages if per_token else advantages[sequence]
            objective = abi.objective(reduction=reduction, clip_low=0.2, clip_high=0.2, dual_clip=np.inf)
            got = batches.policy_loss(library, objective, student=student, teacher=teacher, old=old, cu_seqlens=cu,
                                      advantages=advantages, completion_mask=mask)  # fmt: skip
            terms = reference.token_terms(*(x.astype(np.float64) for x in (student, teacher, old, spread)))
            credited, losses, slopes = (np.where(mask == 1, x, 0.0) for x in terms)
            omega = 1 / mask.sum() if reduction == "token-mean" else 1 / (b * np.maximum(lengths, 1)[sequence])
            close(got["token_advantages"], credited, 1e-6, what="token advantages")
            close(got["gradient_log_probs"], omega * slopes, 1e-6, 1e-12, "dL/dlogP")
            close(got["stats"]["loss"], np.sum(omega * losses), 1e-9, 1e-3, "loss")
            assert got["stats"]["tokens"] == mask.sum()


def check_skipped_rows(library):
    """Rows of A = 0 need not be read: gradient 0, advantage 0, counted; others as before."""
    for fields in ({}, dict(surrogate="gspo-token")):
        batch = dict(random_batch(15, 9, 30, "f32"), cu_seqlens=[0, 3, 6, 9], advantages=[1.0, 0.0, -1.0],
                     completion_mask=None, old=None)  # fmt: skip
        batch["student"].bits[3:6] = np.nan
        objective = abi.objective(**fields)
        got = batches.policy_loss(library, objective, skip_zero_rows=True, **batch)
        assert got["stats"]["skippedRows"] == 3 and got["stats"]["nonFiniteRows"] == 0
        assert not np.any(got["gradient_logits"][3:6])
        assert np.all(got["gradient_log_probs"][[0, 1, 2, 6, 7, 8]] != 0.0)


def check_token_log_probs(library):
    for dtype in abi.DTYPES:
        rng = np.random.default_rng(16)
        values, ids = 3 * rng.standard_normal((7, 1001)), rng.integers(0, 1001, 7)
        view, mask = Logits(values, dtype), np.array([1, 1, 0, 1, 1, 1, 1], np.uint8)
        view.bits[2] = np.nan if dtype != "bf16" else 0x7FC0
        got = batches.token_log_probs(library, view, ids, completion_mask=mask, temperature=0.8)
        for i in range(7):
            log_p, entropy, _, _ = reference.softmax_row(batches.to_floats(view.bits, dtype)[i], ids[i], temperature=0.8)
            close(got["log_probs"][i], log_p if mask[i] else 0.0, 1e-5, 1.0)
            close(got["entropy"][i], entropy if mask[i] else 0.0, 1e-5, 1.0)
        expect_failure("NON_FINITE", lambda: batches.token_log_probs(library, view, ids), 2, "(1 in all)")
    if library.name != "cuda":
        return  # there a call waits, and returns what it found
    with batches.Memory(library) as m:
        stale = np.full(48, 0xEE, np.uint8)
        args = abi.TokenLogProbsArgs(scores=batches.scores(m, Logits(np.zeros((0, 8)), "f32")), temperature=1.0,
                                     token_ids=m.write(ids), outcome=m.write(stale))  # fmt: skip
        library.token_log_probs(args)
        assert not np.any(m.read(args.outcome, stale)), "without tokens the outcome is that nothing is wrong"


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


LOST = 3  # exit status: the device is lost to this process, and checks that are left want another


def is_lost(error):
    return isinstance(error, abi.RlsdError) and error.code == "DEVICE" and "start a new process" in str(error)


def run(library, names, after=None):
    """The exit status of every check, or of those named, from the one behind `after` on. Each is named as it begins and its
    verdict told as it ends, so that a check which ends the process is known by its name."""
    known = {check.__name__.removeprefix("check_"): check for check in CHECKS}
    names = names or list(known)
    failed = False
    for name in names[names.index(after) + 1 if after else 0 :]:
        print(f"{name}: ", end="", flush=True)
        try:
            known[name](library)
            print("passed", flush=True)
        except Exception as error:
            failed = True
            print(traceback.format_exc(limit=-3), flush=True)
            if is_lost(error):
                return LOST
    return int(failed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--after")
    options = parser.parse_args()
    sys.exit(run(abi.Library(options.library), options.names, options.after))


if __name__ == "__main__":
    main()
