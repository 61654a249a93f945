"""One step of RLSD's loss on one batch of logits, by what others use today (ours.py has ours). All see the same tensors.

A contestant has `run()`, which leaves the student's gradient in `gradient`, and `bytes_per_element`: what its passes
move of each (token x vocabulary) element at least. Peers come from the folder that RLSD_PEERS names, or from peers/ at
the root (bench/gpu/peers.py makes it), or from where they are installed; none of their code is here.
"""

import importlib
import math
import os
import pathlib
import sys

import torch

from verdicts import OFFICIAL

CLIP_LOW, CLIP_HIGH, DUAL, CREDIT_MIX, EVIDENCE_CLIP = 0.2, 0.28, 3.0, 0.5, 0.2
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SAMPLED = 2**24  # elements of a gradient that are compared


class Tokens:
    """What a step knows of N tokens besides their logits: sequences of one length, advantages, a mask."""

    def __init__(self, tokens, sequences, device, generator):
        self.tokens, self.sequences, self.device = tokens, sequences, device
        self.cu = torch.linspace(0, tokens, sequences + 1, device=device).round().int()
        self.advantages = torch.randn(sequences, generator=generator, device=device)
        lengths = (self.cu[1:] - self.cu[:-1]).long()
        self.token_advantages = self.advantages.repeat_interleave(lengths)
        # Close to the policy's own: a clipped row has no gradient, and writing zeros would be less work.
        self.drift = 0.02 * torch.randn(tokens, generator=generator, device=device)
        self.mask = torch.ones(tokens, dtype=torch.uint8, device=device)
        # Liger's kernel does not score the last position of a sequence.
        self.all_but_last = self.mask.clone()
        self.all_but_last[self.cu[1:].long() - 1] = 0


class Batch(Tokens):
    """Random logits of student and teacher (N, V)."""

    def __init__(self, tokens, vocabulary, dtype, device, peaked, sequences=16):
        generator = torch.Generator(device).manual_seed(tokens + vocabulary)
        super().__init__(tokens, sequences, device, generator)
        self.vocabulary = vocabulary
        self.student = torch.empty(tokens, vocabulary, dtype=dtype, device=device).normal_(0, 2, generator=generator)
        self.ids = torch.randint(0, vocabulary, (tokens,), generator=generator, device=device)
        if peaked:
            self.student.scatter_(1, self.ids[:, None], 16.0)
        self.teacher = self.student.clone()
        self.teacher.view(-1)[:: max(1, vocabulary // 64)] += 0.5
        self.gradient = torch.zeros_like(self.student)
        self.old = self.exact(self.student) + self.drift
        self.teacher_log_probs = self.exact(self.teacher)

    def exact(self, logits):
        """float32 log-probs, a few rows at a time."""
        rows = torch.arange(self.tokens, device=self.device).split(512)
        pick = lambda r: torch.log_softmax(logits[r].float(), -1).gather(1, self.ids[r, None])[:, 0]
        return torch.cat([pick(r) for r in rows])


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


class Contestant:
    """`case` names the objective that `run` computes (ours.CASES), `job` whether that is the whole step or part of it."""

    case, job, peer, gradient = "step", "step", True, None

    def __init__(self, batch):
        self.batch = batch

    def prepare(self):
        """Before each run, not timed."""

    def forget(self):
        """After each run, not timed: one gradient of gigabytes at a time."""
        self.gradient = None

    def kernel(self):
        """What is to be said of the code that ran, asked after it."""
        return {}

    def answer(self):
        """What is compared: gradient rows from all over the batch."""
        step = math.ceil(self.gradient.numel() / SAMPLED)
        return self.gradient.reshape(self.batch.tokens, -1)[::step].to(torch.float32, copy=True)


class Eager(Contestant):
    """float32 log-softmax by PyTorch, autograd."""

    # Forward, of student and teacher each: upcast 2 + 4, log-softmax 4 + 4. Backward: zeros for the gather 4, log-softmax
    # 4 + 4 + 4, downcast 4 + 2.
    name, bytes_per_element = "PyTorch eager", 50

    def __init__(self, batch):
        super().__init__(batch)
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


def peers_folder():
    """The folder that peers are taken from, or None: what is installed."""
    given = os.environ.get("RLSD_PEERS")
    return given or (str(ROOT / "peers") if (ROOT / "peers").is_dir() else None)


def peer(*modules):
    """The first of the modules whose package is there: a kernel may have moved."""
    folder = peers_folder()
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    for module in modules[:-1]:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.split(".")[0]:
                raise
    return importlib.import_module(modules[-1])


class Official(Contestant):
    """The official path: logits divided by the temperature, flash-attention's Triton cross entropy with its gradient
    over the logits, eager glue. It divides the model's own output in place; a copy moves as many bytes and leaves the
    batch as it is."""

    # Student: division 4, forward 2, backward 4, division's backward 4. Teacher: 4 and 2.
    name, bytes_per_element = OFFICIAL, 20

    def __init__(self, batch):
        super().__init__(batch)
        self.cross_entropy = peer("flash_attn.ops.triton.cross_entropy").cross_entropy_loss

    def log_probs(self, logits):
        return -self.cross_entropy(logits / 1.0, self.batch.ids, inplace_backward=True)[0]

    def run(self):
        student = self.batch.student.detach().requires_grad_()
        log_p = self.log_probs(student)
        with torch.no_grad():
            teacher = self.log_probs(self.batch.teacher)
        policy_terms(log_p, teacher, self.batch).backward()
        self.gradient = student.grad


class Trl(Contestant):
    """TRL's kernel of log-prob and entropy, teacher by the same, eager glue.

    Its kernel's first versions multiply row and stride in 32 bits, so that a view of 2^31 elements or more is out of their
    reach: it gets the batch in parts that are not, as micro-batches."""

    name, bytes_per_element = "TRL's kernel", 8

    def __init__(self, batch):
        super().__init__(batch)
        module = peer("trl_losses.logprob_entropy", "trl.kernels.logprob_entropy")
        self.score = module.selective_log_softmax_and_entropy
        self.parts = math.ceil(batch.tokens * batch.vocabulary / (2**31 - 1))
        self.ids = batch.ids.chunk(self.parts)

    def log_probs(self, parts):
        return torch.cat([self.score(logits, ids)[0] for logits, ids in zip(parts, self.ids)])

    def run(self):
        # A leaf a part: gradients of slices of one leaf would be added up, at many times the kernel's own work.
        parts = [part.detach().requires_grad_() for part in self.batch.student.chunk(self.parts)]
        log_p = self.log_probs(parts)
        with torch.no_grad():
            teacher = self.log_probs(self.batch.teacher.chunk(self.parts))
        policy_terms(log_p, teacher, self.batch).backward()
        self.gradient = [part.grad for part in parts]

    def answer(self):
        self.gradient = torch.cat(self.gradient)
        return super().answer()


class Liger(Contestant):
    """Liger's Triton GRPO with its fused teacher log-probs. It takes one advantage a sequence and has no dual clip, so
    that it does less than is asked: no credit reaches its loss."""

    name, bytes_per_element, case = "Liger's Triton GRPO (without the credit)", 8, "no credit"

    def __init__(self, batch):
        super().__init__(batch)
        ops = peer("liger_kernel.ops.grpo_loss")
        if batch.tokens % batch.sequences:
            raise RuntimeError("sequences of one length are needed")
        self.function, self.score = ops.GrpoLossFunction, ops.fused_selective_log_softmax
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
        # No reference (its KL is off), temperature 1, a gradient of its own; "bnpo" is the mean over tokens.
        loss = self.function.apply(student, self.old, None, self.ids, self.batch.advantages, self.mask, 1.0, 0.0,
                                   CLIP_LOW, CLIP_HIGH, False, "bnpo")[0]  # fmt: skip
        loss.backward()
        self.gradient = student.grad


PEERS = [Eager, Compiled, Official, Trl, Liger]
