"""The log-prob level: no logits, so that launches and not memory decide. Microseconds a call."""

import time

import torch

from clock import DEVICE, ON_GPU, elapsed, in_turn, reason, relative, synchronize
from contestants import Contestant, Tokens, policy_terms
from ours import FromLogProbs

SHAPES = [(tokens, sequences) for tokens in (16384, 65536) for sequences in (16, 1)]
TINY = [(64, 4), (64, 1)]
CALLS, ROUNDS = 10, 15
AHEAD = 20_000_000  # cycles, about ten milliseconds: what the host takes to enqueue the calls of the slowest


class LogProbs(Tokens):
    """(N) log-probs of student, teacher and old policy."""

    def __init__(self, tokens, sequences):
        generator = torch.Generator(DEVICE).manual_seed(tokens + sequences)
        super().__init__(tokens, sequences, DEVICE, generator)
        self.log_p = -3 * torch.rand(tokens, generator=generator, device=DEVICE)
        self.teacher = self.log_p + 0.3 * torch.randn(tokens, generator=generator, device=DEVICE)
        self.old = self.log_p + self.drift


class Eager(Contestant):
    name = "PyTorch eager"

    def __init__(self, batch):
        super().__init__(batch)
        self.step = policy_terms

    def run(self):
        log_p = self.batch.log_p.detach().requires_grad_()
        self.step(log_p, self.batch.teacher, self.batch).backward()
        self.gradient = log_p.grad


class Compiled(Eager):
    name = "PyTorch compiled"

    def __init__(self, batch):
        super().__init__(batch)
        self.step = torch.compile(policy_terms)


def several(entrant):
    for _ in range(CALLS):
        entrant.run()


def host(entrant):
    """Milliseconds of `several` as a caller sees them: enqueued and waited for."""
    synchronize()
    begin = time.perf_counter()
    several(entrant)
    synchronize()
    return 1e3 * (time.perf_counter() - begin)


def measure(library, tokens, sequences):
    batch = LogProbs(tokens, sequences)
    ours = FromLogProbs(batch, library)
    ours.run()
    truth = ours.answer()
    field, absent, differences = [ours], {}, {}
    for peer in (Eager, Compiled):
        try:
            entrant = peer(batch)
            entrant.run()
            differences[entrant.name] = relative(entrant.answer(), truth)
            field.append(entrant)
        except Exception as error:  # any failure of a peer is its reason for not running
            absent[peer.name] = reason(error)
    on_device = in_turn(field, ROUNDS, time_one=lambda entrant: elapsed(lambda: several(entrant), AHEAD), absent=absent)
    field = [entrant for entrant in field if entrant.name in on_device]
    called = in_turn(field, ROUNDS, time_one=host, absent=absent)
    field = [entrant for entrant in field if entrant.name in called]
    microseconds = lambda found: 1e3 * found["ms"] / CALLS
    rows = [{"name": e.name, "device us": microseconds(on_device[e.name]), "call us": microseconds(called[e.name]),
             "difference": differences.get(e.name)} for e in field]  # fmt: skip
    return {"tokens": tokens, "sequences": sequences, "rows": rows, "not_run": absent}


def token_level(library):
    return [measure(library, *shape) for shape in (SHAPES if ON_GPU else TINY)]
