"""The loss over logits in PyTorch, as trainers write it, on request: one JSON object a line in, one out.

{"op": "load", "rows", "vocabulary", "dtype", "threads"} makes random logits.
{"op": "step"} runs forward and backward once: the seconds.
"""

import time

import torch
from json_lines import answer, requests


def load(rows, vocabulary, dtype, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    student = torch.randn(rows, vocabulary).to(getattr(torch, dtype)).requires_grad_()
    return {
        "student": student,
        "teacher": torch.randn(rows, vocabulary).to(student.dtype),
        "ids": torch.randint(vocabulary, (rows, 1)),
        "advantages": torch.where(torch.arange(rows) % 2 == 0, 1.0, -1.0),
    }


def log_probs(logits, ids):
    return torch.log_softmax(logits, -1, dtype=torch.float32).gather(-1, ids).squeeze(-1)


def step(student, teacher, ids, advantages):
    student.grad = None
    with torch.no_grad():
        teacher_log_probs = log_probs(teacher, ids)
    current = log_probs(student, ids)
    old = current.detach()
    weights = torch.exp(torch.sign(advantages) * (teacher_log_probs - old)).clamp(0.8, 1.2)
    credited = advantages * (0.5 + 0.5 * weights)
    ratio = torch.exp((current - old).clamp(-20, 20))
    loss = torch.max(-ratio * credited, -ratio.clamp(0.8, 1.28) * credited)
    loss = torch.where(advantages < 0, torch.min(loss, -3 * credited), loss).mean()
    loss.backward()


data = None
for request in requests():
    if request.pop("op") == "load":
        data = None  # before the next is made
        data = load(**request)
        answer(version=torch.__version__)
    else:
        start = time.perf_counter()
        step(**data)
        answer(seconds=time.perf_counter() - start)
