"""The same loss in PyTorch, as trainers write it: eager.py ROWS VOCABULARY DTYPE THREADS ROUNDS. Prints milliseconds."""
import sys
import time

import torch

rows, vocabulary, dtype, threads, rounds = sys.argv[1:]
rows, vocabulary = int(rows), int(vocabulary)
torch.set_num_threads(int(threads))
torch.manual_seed(0)
student = torch.randn(rows, vocabulary).to(getattr(torch, dtype)).requires_grad_()
teacher = torch.randn(rows, vocabulary).to(student.dtype)
ids = torch.randint(vocabulary, (rows, 1))
advantages = torch.where(torch.arange(rows) % 2 == 0, 1.0, -1.0)


def log_probs(logits):
    return torch.log_softmax(logits, -1, dtype=torch.float32).gather(-1, ids).squeeze(-1)


def step():
    student.grad = None
    with torch.no_grad():
        teacher_log_probs = log_probs(teacher)
    current = log_probs(student)
    old = current.detach()
    weights = torch.exp(torch.sign(advantages) * (teacher_log_probs - old)).clamp(0.8, 1.2)
    credited = advantages * (0.5 + 0.5 * weights)
    ratio = torch.exp((current - old).clamp(-20, 20))
    loss = torch.max(-ratio * credited, -ratio.clamp(0.8, 1.28) * credited)
    loss = torch.where(advantages < 0, torch.min(loss, -3 * credited), loss).mean()
    loss.backward()


best = float("inf")
for _ in range(int(rounds)):
    begin = time.perf_counter()
    step()
    best = min(best, time.perf_counter() - begin)
print(torch.__version__, best * 1000)
