"""Times the contestants: device events, warm-up, medians, one call of each in turn so that clocks sag for all alike.

    python3 bench/gpu/timing.py LIBRARY [--quick] [--seconds N]      prints one JSON object

Buffers are larger than any cache: one call moves gigabytes. Figures stand beside the two ceilings of the same run: a
device-to-device copy (bytes read plus bytes written) and a large bf16 product. Without a GPU the same code runs on tiny
shapes with the host's clock, to show that it runs; its figures mean nothing and are marked so.
"""

import argparse
import json
import statistics
import time

import torch

import abi
import contestants

SHAPES = [(16384, 151936), (16384, 128256), (16384, 32000), (8192, 262144), (8192, 151936), (65536, 32000)]
TINY = [(64, 1000)]
ROUNDS, WARM_UP = 9, 2
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def milliseconds(run):
    """One call's time on the device."""
    if not ON_GPU:
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def summary(times):
    times = sorted(times)
    pick = lambda share: times[min(len(times) - 1, int(share * len(times)))]
    return {"ms": statistics.median(times), "p20": pick(0.2), "p80": pick(0.8), "runs": len(times)}


def ceilings():
    size = 2**30 if ON_GPU else 2**20
    source, target = (torch.empty(size, dtype=torch.int32, device=DEVICE).random_() for _ in range(2))
    copies = [milliseconds(lambda: target.copy_(source)) for _ in range(12)][2:]
    side = 8192 if ON_GPU else 128
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    products = [milliseconds(lambda: a @ b) for _ in range(12)][2:]
    return {
        "copy": {**summary(copies), "GB/s": 8 * size / statistics.median(copies) / 1e6},
        "bf16 product": {**summary(products), "TFLOP/s": 2 * side**3 / statistics.median(products) / 1e9},
    }


def enter(batch, library, with_peers):
    """The contestants that can run here; a reason for each that cannot."""
    rows = ["resident", "plain"] if library.name == "cuda" else ["plain"]
    field = [contestants.Ours(batch, library, r) for r in rows]
    absent = {}
    for peer in contestants.PEERS if with_peers else []:
        try:
            entrant = peer(batch)
            entrant.run()
            field.append(entrant)
        except Exception as error:  # any failure of a peer's own code is its reason for not running
            absent[peer.name] = f"{type(error).__name__}: {error}"[:300]
    return field, absent


def agreement(field):
    """Relative difference of each gradient to ours."""
    reference = None
    found = {}
    for entrant in field:
        entrant.run()
        gradient = entrant.gradient.reshape(-1)[: 2**24].float()
        if reference is None:
            reference = gradient.clone()
        elif gradient.shape == reference.shape:
            found[entrant.name] = ((gradient - reference).norm() / reference.norm()).item()
    return found


def bench(library, tokens, vocabulary, peaked, with_peers, copy_rate):
    batch = contestants.Batch(tokens, vocabulary, torch.bfloat16, DEVICE, peaked)
    field, absent = enter(batch, library, with_peers)
    agree = agreement(field)
    times = {entrant.name: [] for entrant in field}
    for turn in range(WARM_UP + ROUNDS):
        for entrant in field if turn % 2 == 0 else reversed(field):
            spent = milliseconds(entrant.run)
            if turn >= WARM_UP:
                times[entrant.name].append(spent)
    elements = tokens * vocabulary
    rows = []
    for entrant in field:
        found = summary(times[entrant.name])
        floor = 6 * elements / copy_rate / 1e6
        rows.append({"name": entrant.name, **found, "floor_ms": floor, "of_floor": floor / found["ms"],
                     "GB/s at 6 bytes": 6 * elements / found["ms"] / 1e6, "difference": agree.get(entrant.name)})  # fmt: skip
    return {"tokens": tokens, "vocabulary": vocabulary, "logits": "peaked" if peaked else "random", "rows": rows,
            "rows_with_gradient": field[0].share_of_rows_with_gradient(), "not_run": absent}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=200)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    library = abi.Library(options.library)
    found = {"measured": ON_GPU, "ceilings": ceilings(), "shapes": [], "not_run": []}
    rate = found["ceilings"]["copy"]["GB/s"]
    shapes = (SHAPES[:1] if options.quick else SHAPES) if ON_GPU else TINY
    for place, (tokens, vocabulary) in enumerate(shapes):
        for peaked in (False, True):
            name = f"{tokens} x {vocabulary}, {'peaked' if peaked else 'random'}"
            if time.monotonic() > deadline:
                found["not_run"].append(f"{name}: no time left")
                continue
            try:
                found["shapes"].append(bench(library, tokens, vocabulary, peaked, place == 0, rate))
            except torch.OutOfMemoryError as error:
                found["not_run"].append(f"{name}: {error}"[:200])
            if ON_GPU:
                torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
