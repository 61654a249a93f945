"""float64 NumPy of a row of logits and of the default objective: an oracle that shares no code with the kernels."""

import numpy as np

import batches


def shaped(z, softcap=0.0, rounding=False):
    z = np.asarray(z, np.float64)
    if rounding:
        z = batches.to_floats(batches.to_bits(z, "bf16"), "bf16").astype(np.float64)
    return softcap * np.tanh(z / softcap) if softcap else z


def softmax_row(z, target, temperature=1.0, softcap=0.0, rounding=False):
    """log P of the target, entropy, p (V) and f'(z) / temperature (V)."""
    s = shaped(z, softcap, rounding) / temperature
    e = np.exp(s - s.max())
    p = e / e.sum()
    log_z = s.max() + np.log(e.sum())
    entropy = log_z - np.sum(np.where(p > 0, p * np.where(p > 0, s, 0.0), 0.0))
    slope = 1 - np.tanh(shaped(z, 0.0, rounding) / softcap) ** 2 if softcap else np.ones_like(s)
    others = np.delete(s, target) - s[target]
    log_p = -np.log1p(np.exp(others).sum()) if others.max(initial=-np.inf) < 600 else s[target] - log_z
    return log_p, entropy, p, slope / temperature


def gradient_row(z, target, g, entropy_weight=0.0, **options):
    """dL/dz of a row whose dL/dlogP is g, with entropy_weight * -H in the loss."""
    log_p, entropy, p, slope = softmax_row(z, target, **options)
    rest = -p
    rest[target] = -np.expm1(log_p)
    log_ps = np.log(np.where(p > 0, p, 1.0))
    return (g * rest + entropy_weight * p * (log_ps + entropy)) * slope


def token_terms(student, teacher, old, advantage, clip=0.2, mix=0.5, bound=0.2):
    """(N) token advantages, losses and dL/dlogP of ppo-clip with credit, before the reduction."""
    weight = np.exp(np.sign(advantage) * (teacher - student))
    credited = advantage * ((1 - mix) + mix * np.where(advantage == 0, 1.0, np.clip(weight, 1 - bound, 1 + bound)))
    ratio = np.exp(np.clip(student - old, -20, 20))
    free, clipped = -ratio * credited, -np.clip(ratio, 1 - clip, 1 + clip) * credited
    inside = (ratio > 1 - clip) & (ratio < 1 + clip)
    return credited, np.maximum(free, clipped), np.where((free > clipped) | inside, free, 0.0)
