"""The C boundary (csrc/include/rlsd/rlsd.h) by ctypes: a backend's library, its memory, its loss entries.

Works over any backend library: librlsd_cuda.so on a GPU, librlsd_cpu.so anywhere. Device pointers of another library
(PyTorch's tensors) pass as they are.
"""

import ctypes as c
import math

ABI_VERSION = 1
STATUS = ["OK", "INVALID_ARGUMENT", "UNSUPPORTED", "OUT_OF_MEMORY", "NON_FINITE", "CANCELLED", "DEVICE", "INTERNAL"]
DTYPES = {"f32": 0, "f16": 1, "bf16": 2}
WIDTH = {"f32": 4, "f16": 2, "bf16": 2}
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 0, 1, 2
LOG_PROBS, LOGITS = 1, 2

ROW_KERNELS = ["none", "rows-plain", "rows-resident"]

SURROGATES = ["ppo-clip", "gspo", "gspo-token", "cispo", "sapo", "luspo", "gmpo", "row-coefficient"]
REDUCTIONS = ["token-mean", "sequence-mean", "sequence-sum", "token-sum"]
CORRECTIONS = ["none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"]
ESTIMATORS = ["k1", "k2", "k3", "abs"]

STATS = (
    "tokens sequences loss policyLoss klMean entropyMean ratioMean ratioClippedHigh ratioClippedLow dualClipped "
    "advantageMean advantageAbsMean deltaMean deltaMeanPositive deltaMeanNegative evidenceWeightMean clippedWeightMean "
    "evidenceClippedLow evidenceClippedHigh nonFiniteRows nanTeacherRows skippedRows"
).split()


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int32),
        ("rank", c.c_int32),
        ("shape", c.c_int64 * 4),
        ("stride", c.c_int64 * 4),
    ]

    @classmethod
    def of(cls, data, dtype, rows, columns, stride=None):
        t = cls(data=data, dtype=DTYPES[dtype], rank=2)
        t.shape[0], t.shape[1] = rows, columns
        t.stride[0], t.stride[1] = stride or columns, 1
        return t


class Context(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("device", c.c_int32),
        ("stream", c.c_void_p),
        ("threads", c.c_int32),
        ("reserved", c.c_int32),
        ("workspace", c.c_void_p),
        ("workspace_bytes", c.c_uint64),
        ("cancel", c.c_void_p),
        ("error_index", c.c_int64),
        ("error_count", c.c_int64),
        ("error", c.c_char * 512),
    ]


class Scores(c.Structure):
    _fields_ = [
        ("level", c.c_int32),
        ("reserved", c.c_int32),
        ("log_probs", c.c_void_p),
        ("logits", Tensor),
        ("hidden", Tensor),
        ("head", Tensor),
        ("bias", Tensor),
        ("rows", c.c_void_p),
        ("vocab_size", c.c_int64),
    ]


class Objective(c.Structure):
    _fields_ = (
        [("struct_size", c.c_uint32)]
        + [
            (name, c.c_int32)
            for name in (
                "surrogate reduction importance kl_estimator kl_importance_correction negative_only pessimistic "
                "normalize_sequence student_source_old non_finite_skip logit_rounding_bf16"
            ).split()
        ]
        + [
            (name, c.c_double)
            for name in (
                "clip_low clip_high dual_clip ratio_bound normalizer kl_coef kl_clamp temperature entropy_coef "
                "logit_softcap credit_mix evidence_clip sapo_temperature_pos sapo_temperature_neg importance_min "
                "importance_max log_clip_low log_clip_high log_evidence_low log_evidence_high"
            ).split()
        ]
    )


class PolicyBatch(c.Structure):
    _fields_ = [
        ("tokens", c.c_int64),
        ("sequences", c.c_int64),
        ("student", Scores),
        ("teacher", Scores),
        ("contrast", Scores),
        ("token_ids", c.c_void_p),
        ("cu_seqlens", c.c_void_p),
        ("completion_mask", c.c_void_p),
        ("span_mask", c.c_void_p),
        ("advantages", c.c_void_p),
        ("advantages_per_token", c.c_int64),
        ("old_log_probs", c.c_void_p),
        ("ref_log_probs", c.c_void_p),
        ("sampler_log_probs", c.c_void_p),
    ]


class PolicyOutputs(c.Structure):
    _fields_ = [
        ("log_probs", c.c_void_p),
        ("teacher_log_probs", c.c_void_p),
        ("token_advantages", c.c_void_p),
        ("evidence_weights", c.c_void_p),
        ("gradient_log_probs", c.c_void_p),
        ("gradient_logits", Tensor),
        ("gradient_hidden", Tensor),
        ("gradient_head", Tensor),
        ("gradient_bias", Tensor),
        ("accumulate", c.c_int32),
        ("skip_zero_rows", c.c_int32),
        ("clear_other_rows", c.c_int32),
        ("reserved", c.c_int32),
        ("loss_scale", c.c_double),
        ("stats", c.c_void_p),
        ("outcome", c.c_void_p),
        ("loss", c.c_void_p),
    ]


class TokenLogProbsArgs(c.Structure):
    _fields_ = [
        ("tokens", c.c_int64),
        ("scores", Scores),
        ("token_ids", c.c_void_p),
        ("completion_mask", c.c_void_p),
        ("temperature", c.c_double),
        ("logit_softcap", c.c_double),
        ("logit_rounding_bf16", c.c_int32),
        ("non_finite_skip", c.c_int32),
        ("log_probs", c.c_void_p),
        ("entropy", c.c_void_p),
        ("outcome", c.c_void_p),
    ]


class DeviceInfo(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("ordinal", c.c_int32),
        ("name", c.c_char * 128),
        ("memory_bytes", c.c_uint64),
        ("free_bytes", c.c_uint64),
        ("compute_major", c.c_int32),
        ("compute_minor", c.c_int32),
        ("driver_version", c.c_int32),
        ("runtime_version", c.c_int32),
    ]


class Rows(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("kernel", c.c_int32),
        ("cluster", c.c_int32),
        ("preferred", c.c_int32),
        ("at_once", c.c_int32),
        ("reserved", c.c_int32),
    ]


def _entry(*arguments):
    return c.CFUNCTYPE(c.c_int32, c.POINTER(Context), *arguments)


_POINTER = c.c_void_p
_BATCH = (c.POINTER(PolicyBatch), c.POINTER(Objective), c.POINTER(PolicyOutputs))
_TOKENS = (c.POINTER(TokenLogProbsArgs),)
_BYTES = c.POINTER(c.c_uint64)

# The table's entries in order. Those that are only passed over on the way to the last are reached from Node.
_ENTRIES = [
    ("device_count", _entry(c.POINTER(c.c_int32))),
    ("device_info", _entry(c.POINTER(DeviceInfo))),
    ("allocate", _entry(c.c_uint64, c.POINTER(_POINTER))),
    ("release", _entry(_POINTER)),
    ("allocate_host", _entry(c.c_uint64, c.POINTER(_POINTER))),
    ("release_host", _entry(_POINTER)),
    ("copy", _entry(_POINTER, _POINTER, c.c_uint64, c.c_int32)),
    ("fill_zero", _entry(_POINTER, c.c_uint64)),
    ("stream_create", _entry(c.POINTER(_POINTER))),
    ("stream_destroy", _entry(_POINTER)),
    ("synchronize", _entry()),
    ("event_create", _entry(c.POINTER(_POINTER))),
    ("event_destroy", _entry(_POINTER)),
    ("event_record", _entry(_POINTER)),
    ("event_wait", _entry(_POINTER)),
    ("event_query", _entry(_POINTER, c.POINTER(c.c_int32))),
    ("ipc_export", _entry(_POINTER, _POINTER)),
    ("ipc_import", _entry(_POINTER, c.POINTER(_POINTER))),
    ("ipc_close", _entry(_POINTER)),
    ("policy_loss_workspace", _entry(*_BATCH, _BYTES)),
    ("policy_loss", _entry(*_BATCH)),
    ("token_log_probs_workspace", _entry(*_TOKENS, _BYTES)),
    ("token_log_probs", _entry(*_TOKENS)),
    *((name, c.c_void_p) for name in (
        "distill_loss_workspace distill_loss embedding rms_norm rope attention attention_decode cache_append glu "
        "residual_add matmul matmul_workspace convert embedding_backward rms_norm_backward attention_backward "
        "attention_backward_workspace glu_backward bias_backward adamw squared_norm scale sample_workspace sample "
        "describe_outcome"
    ).split()),
    ("matmul_types", c.c_uint32),
    ("policy_loss_rows", _entry(*_BATCH, c.POINTER(Rows))),
    *((name, c.c_void_p) for name in ("packed_weight_bytes", "pack_weight", "matmul_packed")),
]  # fmt: skip


class Table(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("abi_version", c.c_uint32), ("name", c.c_char_p)] + _ENTRIES


class RlsdError(Exception):
    """`code` as in Node, without its prefix; `index` and `count` as in rlsd_context."""

    def __init__(self, status, context):
        super().__init__(context.error.decode() or STATUS[status])
        self.code = STATUS[status]
        self.index = context.error_index
        self.count = context.error_count


class Library:
    """One backend library on one device, and a workspace that grows as calls ask for it."""

    def __init__(self, path, device=0):
        self._library = c.CDLL(path)
        get = self._library.rlsd_backend_get
        get.restype = c.POINTER(Table)
        table = get(c.c_uint32(ABI_VERSION))
        if not table or table.contents.struct_size < c.sizeof(Table):
            raise RuntimeError(f"{path} does not serve ABI version {ABI_VERSION}")
        self.table = table.contents
        self.name = self.table.name.decode()
        self.context = Context(struct_size=c.sizeof(Context), device=device, error_index=-1)

    def call(self, name, *arguments):
        entry = getattr(self.table, name)
        if not entry:
            raise RuntimeError(f"the {self.name} backend has no {name}")
        self.context.error, self.context.error_index, self.context.error_count = b"", -1, 0
        status = entry(c.byref(self.context), *arguments)
        if status != 0:
            raise RlsdError(status, self.context)

    def device_count(self):
        count = c.c_int32()
        self.call("device_count", c.byref(count))
        return count.value

    def device_info(self):
        info = DeviceInfo(struct_size=c.sizeof(DeviceInfo))
        self.call("device_info", c.byref(info))
        return info

    def allocate(self, size):
        data = c.c_void_p()
        self.call("allocate", size, c.byref(data))
        return data.value

    def release(self, data):
        self.call("release", data)

    def reserve(self, size):
        """Workspace for a call; kept until a larger one is asked for."""
        if size <= self.context.workspace_bytes:
            return
        if self.context.workspace:
            self.call("synchronize")
            self.release(self.context.workspace)
            self.context.workspace, self.context.workspace_bytes = None, 0
        self.context.workspace, self.context.workspace_bytes = self.allocate(size), size

    def policy_loss(self, batch, objective, outputs):
        size = c.c_uint64()
        arguments = c.byref(batch), c.byref(objective), c.byref(outputs)
        self.call("policy_loss_workspace", *arguments, c.byref(size))
        self.reserve(size.value)
        self.call("policy_loss", *arguments)

    def policy_loss_rows(self, batch, objective, outputs):
        """Which kernel the rows of a policy loss get on this device, and by how many blocks; None: there is one way."""
        if not self.table.policy_loss_rows:
            return None
        rows = Rows(struct_size=c.sizeof(Rows))
        self.call("policy_loss_rows", c.byref(batch), c.byref(objective), c.byref(outputs), c.byref(rows))
        return {"kernel": ROW_KERNELS[rows.kernel], "blocks": rows.cluster, "preferred blocks": rows.preferred,
                "at once": rows.at_once}  # fmt: skip

    def token_log_probs(self, args):
        size = c.c_uint64()
        self.call("token_log_probs_workspace", c.byref(args), c.byref(size))
        self.reserve(size.value)
        self.call("token_log_probs", c.byref(args))


def _log_low(clip):
    return math.log1p(-clip) if clip < 1 else -math.inf


def objective(**fields):
    """An objective from the names of docs/maths.md in snake case; what is not given is the official script's."""
    o = dict(
        surrogate="ppo-clip", reduction="token-mean", importance="token-truncate", kl_estimator="k3",
        kl_importance_correction=0, negative_only=0, pessimistic=0, normalize_sequence=0, student_source_old=0,
        non_finite_skip=0, logit_rounding_bf16=0, clip_low=0.2, clip_high=0.28, dual_clip=3.0, ratio_bound=math.inf,
        normalizer=0.0, kl_coef=0.0, kl_clamp=10.0, temperature=1.0, entropy_coef=0.0, logit_softcap=0.0,
        credit_mix=0.5, evidence_clip=0.2, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, importance_min=0.0,
        importance_max=3.0,
    )  # fmt: skip
    unknown = fields.keys() - o.keys()
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    o.update(fields)
    o["surrogate"] = SURROGATES.index(o["surrogate"])
    o["reduction"] = REDUCTIONS.index(o["reduction"])
    o["importance"] = CORRECTIONS.index(o["importance"])
    o["kl_estimator"] = ESTIMATORS.index(o["kl_estimator"])
    o.update(
        log_clip_low=_log_low(o["clip_low"]), log_clip_high=math.log1p(o["clip_high"]),
        log_evidence_low=_log_low(o["evidence_clip"]), log_evidence_high=math.log1p(o["evidence_clip"]),
    )  # fmt: skip
    return Objective(struct_size=c.sizeof(Objective), **o)
