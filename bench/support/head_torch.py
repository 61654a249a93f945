"""The RLSD loss over an LM head in PyTorch, plain and chunked, on request: one JSON object a line in, one out.

{"op": "load", "threads", "tokens", "vocab", "width"} makes random inputs.
{"op": "step", "rows"} runs forward and backward once, `rows` tokens at a time: seconds, peak bytes above the inputs and
gradients, and the loss.
"""

import time

import torch
from json_lines import answer, requests


def resident(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def load(threads, tokens, vocab, width):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    scale = width**-0.5
    return {
        "student": torch.randn(tokens, width, requires_grad=True),
        "teacher": torch.randn(tokens, width),
        "head": torch.mul(torch.randn(vocab, width), scale).requires_grad_(),
        "ids": torch.randint(vocab, (tokens,)),
        "advantages": torch.where(torch.arange(tokens) % 2 == 0, 1.0, -1.0),
    }


def log_probs(hidden, head, ids):
    logits = hidden @ head.T
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


def loss_of(d, first, last, tokens):
    ids, a = d["ids"][first:last], d["advantages"][first:last]
    student = log_probs(d["student"][first:last], d["head"], ids)
    with torch.no_grad():
        teacher = log_probs(d["teacher"][first:last], d["head"], ids)
    weight = torch.exp(torch.sign(a) * (teacher - student.detach())).clamp(0.8, 1.2)
    advantage = a * (0.5 + 0.5 * weight)
    ratio = torch.exp(student - student.detach())
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).sum() / tokens


def step(d, rows):
    # Gradients exist and are touched before the clock, as those of the other side are.
    for name in ("student", "head"):
        d[name].grad = torch.zeros_like(d[name]) if d[name].grad is None else d[name].grad.zero_()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = resident("VmRSS:")
    tokens = d["ids"].numel()
    start = time.perf_counter()
    total = 0.0
    for first in range(0, tokens, rows):
        loss = loss_of(d, first, min(tokens, first + rows), tokens)
        loss.backward()
        total += loss.item()
    return {"seconds": time.perf_counter() - start, "bytes": resident("VmHWM:") - before, "loss": total}


data = None
for request in requests():
    op = request.pop("op")
    if op == "load":
        data = load(**request)
        answer(version=torch.__version__)
    else:
        answer(**step(data, **request))
