"""Our contestants: the loss entries of a backend library on the tensors' own memory. Nothing waits for the device."""

import ctypes as c
import math
import os

import torch

import abi
from contestants import CLIP_HIGH, CLIP_LOW, CREDIT_MIX, DUAL, EVIDENCE_CLIP, Contestant

NAMES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
# Objectives that contestants compute: the official script's, and what is left where a peer knows no credit.
CASES = {"step": {}, "no credit": dict(credit_mix=0.0, dual_clip=math.inf)}


def objective(case="step"):
    fields = dict(clip_low=CLIP_LOW, clip_high=CLIP_HIGH, dual_clip=DUAL, credit_mix=CREDIT_MIX,
                  evidence_clip=EVIDENCE_CLIP)  # fmt: skip
    return abi.objective(**{**fields, **CASES[case]})


def matrix(t):
    return abi.Tensor.of(t.data_ptr(), NAMES[t.dtype], *t.shape)


def logits(t):
    return abi.Scores(level=abi.LOGITS, logits=matrix(t), vocab_size=t.shape[1])


def log_probs(t):
    return abi.Scores(level=abi.LOG_PROBS, log_probs=t.data_ptr())


class Results:
    """Memory for what a policy loss writes besides the gradient of logits."""

    def __init__(self, batch):
        f32 = lambda: torch.empty(batch.tokens, device=batch.device)
        self.log_probs, self.teacher, self.advantages, self.weights, self.gradient = (f32() for _ in range(5))
        self.stats = torch.empty(len(abi.STATS), dtype=torch.float64, device=batch.device)

    def outputs(self, **more):
        return abi.PolicyOutputs(
            log_probs=self.log_probs.data_ptr(), teacher_log_probs=self.teacher.data_ptr(),
            token_advantages=self.advantages.data_ptr(), evidence_weights=self.weights.data_ptr(),
            gradient_log_probs=self.gradient.data_ptr(), loss_scale=1.0, stats=self.stats.data_ptr(), **more,
        )  # fmt: skip


class Library(Contestant):
    """A call of the library on PyTorch's stream. `rows` is the kernel asked for, where there is a choice."""

    peer, suffix = False, ""

    def __init__(self, batch, library, rows):
        super().__init__(batch)
        self.library, self.rows, self.name = library, rows, self.title(rows)
        self.outcome = torch.zeros(128, dtype=torch.uint8, device=batch.device)
        if batch.device.type == "cuda":
            library.context.stream = c.c_void_p(torch.cuda.current_stream().cuda_stream)

    @classmethod
    def title(cls, rows):
        return f"rlsd, {rows} rows{cls.suffix}"

    def call(self, name, *arguments):
        os.environ["RLSD_CUDA_ROWS"] = self.rows
        getattr(self.library, name)(*arguments)

    def answer(self):
        status = self.outcome[:4].view(torch.int32).item()
        if status:
            raise RuntimeError(f"{self.name}: the device answered {abi.STATUS[status]}")
        return self.result()

    def result(self):
        return super().answer()


class Ours(Library):
    """The whole step: loss, credit and the gradient of logits beside them."""

    bytes_per_element = 6

    def __init__(self, batch, library, rows, case="step"):
        super().__init__(batch, library, rows)
        self.ids, self.results = batch.ids.int(), Results(batch)
        mask = batch.mask if case == "step" else batch.all_but_last
        self.arguments = abi.PolicyBatch(
            tokens=batch.tokens, sequences=batch.sequences, student=logits(self.student()), teacher=self.teacher(),
            token_ids=self.ids.data_ptr(), cu_seqlens=batch.cu.data_ptr(), completion_mask=mask.data_ptr(),
            advantages=batch.advantages.data_ptr(), old_log_probs=batch.old.data_ptr(),
        )  # fmt: skip
        self.outputs = self.results.outputs(outcome=self.outcome.data_ptr(), gradient_logits=matrix(self.place()))
        self.objective = objective(case)

    def student(self):
        return self.batch.student

    def teacher(self):
        return logits(self.batch.teacher)

    def place(self):
        return self.batch.gradient

    def run(self):
        self.call("policy_loss", self.arguments, self.objective, self.outputs)
        self.gradient = self.place()

    def kernel(self):
        os.environ["RLSD_CUDA_ROWS"] = self.rows
        return {"kernel": self.library.policy_loss_rows(self.arguments, self.objective, self.outputs)}

    def share_of_rows_with_gradient(self):
        return (self.results.gradient != 0).float().mean().item()


class InPlace(Ours):
    """The gradient over the logits, of a copy that is made anew before each run."""

    suffix = ", in place"

    def __init__(self, batch, library, rows):
        self.own = batch.student.clone()
        super().__init__(batch, library, rows)

    def student(self):
        return self.own

    def place(self):
        return self.own

    def prepare(self):
        self.own.copy_(self.batch.student)


class TeacherLogProbs(Ours):
    """The teacher given as log-probs: its logits are not read."""

    bytes_per_element, job, suffix = 4, "part", ", teacher's log-probs given"

    def teacher(self):
        return log_probs(self.batch.teacher_log_probs)


class TokenLogProbs(Library):
    """The student's log-probs alone."""

    bytes_per_element, job, case, suffix = 2, "part", "log-probs", ", token_log_probs"

    def __init__(self, batch, library, rows):
        super().__init__(batch, library, rows)
        self.ids = batch.ids.int()
        self.found = torch.empty(batch.tokens, device=batch.device)
        self.arguments = abi.TokenLogProbsArgs(
            tokens=batch.tokens, scores=logits(batch.student), token_ids=self.ids.data_ptr(), temperature=1.0,
            log_probs=self.found.data_ptr(), outcome=self.outcome.data_ptr(),
        )  # fmt: skip

    def run(self):
        self.call("token_log_probs", self.arguments)

    def result(self):
        return self.found.clone()


VARIANTS = [InPlace, TeacherLogProbs, TokenLogProbs]


class FromLogProbs(Library):
    """The step where both views are (N) log-probs."""

    @classmethod
    def title(cls, _):
        return "rlsd"

    def __init__(self, batch, library):
        super().__init__(batch, library, "resident")
        self.results = Results(batch)
        self.arguments = abi.PolicyBatch(
            tokens=batch.tokens, sequences=batch.sequences, student=log_probs(batch.log_p),
            teacher=log_probs(batch.teacher), cu_seqlens=batch.cu.data_ptr(), completion_mask=batch.mask.data_ptr(),
            advantages=batch.advantages.data_ptr(), old_log_probs=batch.old.data_ptr(),
        )  # fmt: skip
        self.outputs, self.objective = self.results.outputs(outcome=self.outcome.data_ptr()), objective()

    def run(self):
        self.call("policy_loss", self.arguments, self.objective, self.outputs)
        self.gradient = self.results.gradient
