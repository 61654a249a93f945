"""One step of RLSD's loss on one batch of logits, by us and by what others use today. All see the same tensors.

A contestant has `run()`, which leaves the student's gradient in `gradient`, and `bytes_per_element`: what its passes
move of each (token x vocabulary) element at least. Peers come from their own packages where they are installed, or from
the folder that RLSD_PEERS names; none of their code is here.
"""

import ctypes as c
import importlib
import os
import sys

import torch

import abi

CLIP_LOW, CLIP_HIGH, DUAL, CREDIT_MIX, EVIDENCE_CLIP = 0.2, 0.28, 3.0, 0.5, 0.2


class Batch:
    """Random logits of student and teacher (N, V), sequences of one length, everything on one device."""

    def __init__(self, tokens, vocabulary, dtype, device, peaked, sequences=16):
        generator = torch.Generator(device).manual_seed(tokens + vocabulary)
        self.tokens, self.vocabulary, self.sequences = tokens, vocabulary, sequences
        self.student = torch.empty(tokens, vocabulary, dtype=dtype, device=device).normal_(0, 2, generator=generator)
        self.ids = torch.randint(0, vocabulary, (tokens,), generator=generator, device=device)
        if peaked:
            self.student.scatter_(1, self.ids[:, None], 16.0)
        self.teacher = self.student.clone()
        self.teacher.view(-1)[:: max(1, vocabulary // 64)] += 0.5
        self.gradient = torch.zeros_like(self.student)
        self.cu = torch.linspace(0, tokens, sequences + 1, device=device).round().int()
        self.advantages = torch.randn(sequences, generator=generator, device=device)
        lengths = (self.cu[1:] - self.cu[:-1]).long()
        self.token_advantages = self.advantages.repeat_interleave(lengths)
        # Close to the policy's own: a clipped row has no gradient, and writing zeros would be less work.
        noise = 0.02 * torch.randn(tokens, generator=generator, device=device)
        self.old = torch.cat([self.exact(rows) for rows in torch.arange(tokens, device=device).split(512)]) + noise
        self.mask = torch.ones(tokens, dtype=torch.uint8, device=device)

    def exact(self, rows):
        return torch.log_softmax(self.student[rows].float(), -1).gather(1, self.ids[rows, None])[:, 0]


def policy_terms(log_p, teacher, batch):
    """The official script's loss from (N) log-probs, eager: credit, clipped surrogate with dual clip, token mean."""
    with torch.no_grad():
        weight = torch.exp(torch.sign(batch.token_advantages) * (teacher - log_p.detach()))
        rho = (1 - CREDIT_MIX) + CREDIT_MIX * weight.clamp(1 - EVIDENCE_CLIP, 1 + EVIDENCE_CLIP)
        advantages = batch.token_advantages * rho
    ratio = torch.exp((log_p - batch.old).clamp(-20, 20))
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    loss = torch.maximum(plain, clipped)
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * DUAL), loss)
    mask = batch.mask.float()
    return (loss * mask).sum() / mask.sum()


class Ours:
    """policy_loss of a backend library on the tensors' own memory; nothing waits for the device."""

    bytes_per_element = 6

    def __init__(self, batch, library, rows):
        self.batch, self.library, self.rows = batch, library, rows
        self.name = f"rlsd, {rows} rows"
        device = batch.student.device
        f32 = lambda: torch.empty(batch.tokens, device=device)
        self.results = [f32() for _ in range(5)]
        self.ids = batch.ids.int()
        self.stats = torch.empty(len(abi.STATS), dtype=torch.float64, device=device)
        self.outcome = torch.zeros(128, dtype=torch.uint8, device=device)
        dtype = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}[batch.student.dtype]
        view = lambda t: abi.Scores(
            level=abi.LOGITS, logits=abi.Tensor.of(t.data_ptr(), dtype, *t.shape), vocab_size=batch.vocabulary
        )
        self.call = abi.PolicyBatch(
            tokens=batch.tokens, sequences=batch.sequences, student=view(batch.student), teacher=view(batch.teacher),
            token_ids=self.ids.data_ptr(), cu_seqlens=batch.cu.data_ptr(), completion_mask=batch.mask.data_ptr(),
            advantages=batch.advantages.data_ptr(), old_log_probs=batch.old.data_ptr(),
        )  # fmt: skip
        places = [t.data_ptr() for t in self.results]
        self.outputs = abi.PolicyOutputs(
            log_probs=places[0], teacher_log_probs=places[1], token_advantages=places[2], evidence_weights=places[3],
            gradient_log_probs=places[4], loss_scale=1.0, stats=self.stats.data_ptr(), outcome=self.outcome.data_ptr(),
            gradient_logits=abi.Tensor.of(batch.gradient.data_ptr(), dtype, *batch.gradient.shape),
        )  # fmt: skip
        self.objective = abi.objective(clip_low=CLIP_LOW, clip_high=CLIP_HIGH, dual_clip=DUAL, credit_mix=CREDIT_MIX,
                                       evidence_clip=EVIDENCE_CLIP)  # fmt: skip
        if device.type == "cuda":
            library.context.stream = c.c_void_p(torch.cuda.current_stream().cuda_stream)

    def run(self):
        os.environ["RLSD_CUDA_ROWS"] = self.rows
        self.library.policy_loss(self.call, self.objective, self.outputs)

    @property
    def gradient(self):
        return self.batch.gradient

    def share_of_rows_with_gradient(self):
        return (self.results[4] != 0).float().mean().item()


class Eager:
    """float32 log-softmax by PyTorch, autograd."""

    name, bytes_per_element = "PyTorch eager", 32

    def __init__(self, batch):
        self.batch = batch
        self.step = self.loss

    def log_probs(self, logits):
        return torch.log_softmax(logits.float(), -1).gather(1, self.batch.ids[:, None])[:, 0]

    def loss(self, student):
        with torch.no_grad():
            teacher = self.log_probs(self.batch.teacher)
        return policy_terms(self.log_probs(student), teacher, self.batch)

    def run(self):
        student = self.batch.student.detach().requires_grad_()
        self.step(student).backward()
        self.gradient = student.grad


class Compiled(Eager):
    """The same under torch.compile."""

    name, bytes_per_element = "PyTorch compiled", 8

    def __init__(self, batch):
        super().__init__(batch)
        self.step = torch.compile(self.loss)


def peer(module):
    folder = os.environ.get("RLSD_PEERS")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(module)


class Official:
    """The official path: logits divided by the temperature, flash-attention's Triton cross entropy, eager glue."""

    name, bytes_per_element = "official path (flash-attention's cross entropy)", 20

    def __init__(self, batch):
        self.batch = batch
        self.cross_entropy = peer("flash_attn.ops.triton.cross_entropy").cross_entropy_loss

    def log_probs(self, logits, inplace):
        return -self.cross_entropy(logits, self.batch.ids, inplace_backward=inplace)[0]

    def run(self):
        student = self.batch.student.detach().requires_grad_()
        log_p = self.log_probs(student / 1.0, True)
        with torch.no_grad():
            teacher = self.log_probs(self.batch.teacher / 1.0, False)
        policy_terms(log_p, teacher, self.batch).backward()
        self.gradient = student.grad


class Trl:
    """TRL's kernel of log-prob and entropy, teacher by the same, eager glue."""

    name, bytes_per_element = "TRL's kernel", 8

    def __init__(self, batch):
        self.batch = batch
        self.kernel = peer("trl_losses").selective_log_softmax

    def run(self):
        student = self.batch.student.detach().requires_grad_()
        log_p = self.kernel(student[None], self.batch.ids[None])[0]
        with torch.no_grad():
            teacher = self.kernel(self.batch.teacher[None], self.batch.ids[None])[0]
        policy_terms(log_p, teacher, self.batch).backward()
        self.gradient = student.grad


class Liger:
    """Liger's Triton GRPO with its fused teacher log-probs. It takes one advantage a sequence, so that it does less than
    is asked: no credit reaches its loss."""

    name, bytes_per_element = "Liger's Triton GRPO (without the credit)", 8

    def __init__(self, batch):
        ops = peer("liger_kernel.ops.grpo_loss")
        if batch.tokens % batch.sequences:
            raise RuntimeError("sequences of one length are needed")
        self.batch, self.function, self.score = batch, ops.GrpoLossFunction, ops.fused_selective_log_softmax
        length = batch.tokens // batch.sequences
        # It wants (B, L + 1, V): the last position of each sequence is not scored.
        shape = (batch.sequences, length, batch.vocabulary)
        self.student, self.teacher = batch.student.view(shape), batch.teacher.view(shape)
        self.ids = batch.ids.view(batch.sequences, length)[:, : length - 1].contiguous()
        self.old = batch.old.view(batch.sequences, length)[:, : length - 1].contiguous()
        self.mask = torch.ones_like(self.ids, dtype=torch.int32)

    def run(self):
        student = self.student.detach().requires_grad_()
        self.score(self.teacher, self.ids, 1.0, self.mask)
        loss = self.function.apply(student, self.old, None, self.ids, self.mask, self.batch.advantages, 1.0, 0.0,
                                   CLIP_LOW, CLIP_HIGH, False)[0]  # fmt: skip
        (loss * self.mask).sum().backward()
        self.gradient = student.grad


PEERS = [Eager, Compiled, Official, Trl, Liger]
