"""What the machine gives at best, in the same process: a device-to-device copy and a large bf16 product."""

import statistics

import torch

from clock import DEVICE, ON_GPU, elapsed, summary


def ceilings():
    """GB/s counts bytes read plus bytes written."""
    size = 2**30 if ON_GPU else 2**20
    source, target = (torch.empty(size, dtype=torch.int32, device=DEVICE).random_() for _ in range(2))
    copies = [elapsed(lambda: target.copy_(source)) for _ in range(22)][2:]
    side = 8192 if ON_GPU else 128
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    products = [elapsed(lambda: a @ b) for _ in range(22)][2:]
    return {
        "copy": {**summary(copies), "GB/s": 8 * size / statistics.median(copies) / 1e6},
        "bf16 product": {**summary(products), "TFLOP/s": 2 * side**3 / statistics.median(products) / 1e9},
    }
