"""Times the contestants: device events, warm-up, medians, one call of each in turn so that clocks sag for all alike.

    python3 bench/gpu/timing.py LIBRARY [--out FILE] [--quick] [--seconds N]

Gives one JSON object, into FILE after each part where one is named: what was measured is there whatever comes later. A
FILE that is there is gone on from (progress.py).
Buffers are larger than any cache: one call moves gigabytes. Figures stand beside the two ceilings of the same run: a
device-to-device copy (bytes read plus bytes written) and a large bf16 product. Without a GPU the same code runs on tiny
shapes with the host's clock, to show that it runs; its figures mean nothing and are marked so.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import time

import torch

import abi
import contestants
import ours
from ceilings import ceilings
from clock import DEVICE, ON_GPU, Clocks, in_turn, reason, relative, synchronize
from progress import Progress
from token_level import token_level

# The first is the shape of the targets: there peers run too.
SHAPES = [(16384, 151936), (16384, 128256), (16384, 32000), (8192, 262144), (8192, 151936), (65536, 32000)]
TINY = [(64, 1000)]
ROUNDS = 15
PREFETCH = "RLSD_CUDA_PREFETCH_KIB"
PREFETCH_KIB = (0, 8, 16, 32, 64)


def device():
    if not ON_GPU:
        return None
    return {"name": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability())}


FIRST_RUN = {True: 90, False: 30}  # seconds at most, of a peer, which may have to be compiled, and of ours


def try_out(kind, name, progress, absent, is_peer):
    """A contestant that has run once and given its answer, or None and a reason in `absent`."""
    if name in progress.found["left_out"]:
        absent[name] = f"in a process before this one: {progress.found['left_out'][name]}"
        return None
    progress.enter(name, FIRST_RUN[is_peer])
    try:
        entrant = kind()
        answer_of(entrant)
        synchronize()
        return entrant
    except Exception as error:  # any failure of a contestant's own is its reason for not running
        absent[name] = reason(error)
        synchronize()  # a device that is lost says so here: nothing more can be timed
        return None
    finally:
        gc.collect()


def enter(batch, library, with_peers, progress):
    """The contestants that can run here, ours first, and a reason for each that cannot."""
    absent = {}
    attempt = lambda name, kind, is_peer=False: try_out(kind, name, progress, absent, is_peer)
    kernels = ["resident", "plain"] if library.name == "cuda" else ["plain"]
    found = [attempt(ours.Ours.title(rows), lambda: ours.Ours(batch, library, rows)) for rows in kernels]
    field = [entrant for entrant in found if entrant is not None]
    if not field:
        raise RuntimeError(f"no kernel of ours ran: {absent}")
    if with_peers:
        rows = field[0].rows
        found += [attempt(kind.title(rows), lambda: kind(batch, library, rows)) for kind in ours.VARIANTS]
        found += [attempt(peer.name, lambda: peer(batch), True) for peer in contestants.PEERS]
    progress.entered()
    return [entrant for entrant in found if entrant is not None], absent


def answer_of(entrant):
    entrant.prepare()
    entrant.run()
    found = entrant.answer()
    entrant.forget()
    return found


def agreement(field, absent, library, batch):
    """Relative difference of each gradient (of the log-probs, where there is none) to ours of the same objective. A peer
    that fails leaves the field."""
    truth, found = {}, {}
    for entrant in list(field):
        if entrant.case not in truth:
            case = "step" if entrant.case == "log-probs" else entrant.case
            reference = ours.Ours(batch, library, field[0].rows, case)
            truth[case] = answer_of(reference)
            truth.setdefault("log-probs", reference.results.log_probs)
        try:
            found[entrant.name] = relative(answer_of(entrant), truth[entrant.case])
        except Exception as error:
            if not entrant.peer:
                raise
            field.remove(entrant)
            absent[entrant.name] = reason(error)
    return found


def bench(progress, library, shape, peaked, with_peers):
    begin = time.monotonic()
    batch = contestants.Batch(*shape, torch.bfloat16, DEVICE, peaked)
    field, absent = enter(batch, library, with_peers, progress)
    differences = agreement(field, absent, library, batch)
    times = in_turn(field, ROUNDS, absent=absent)
    field = [entrant for entrant in field if entrant.name in times]
    elements, rate = shape[0] * shape[1], progress.found["ceilings"]["copy"]["GB/s"]
    rows = []
    for entrant in field:
        moved, found = entrant.bytes_per_element * elements, times[entrant.name]
        floor = moved / rate / 1e6
        rows.append({"name": entrant.name, "peer": entrant.peer, "job": entrant.job, **found,
                     "bytes_per_element": entrant.bytes_per_element, "floor_ms": floor, "of_floor": floor / found["ms"],
                     "GB/s": moved / found["ms"] / 1e6, "difference": differences[entrant.name],
                     **entrant.kernel()})  # fmt: skip
    progress.found["shapes"].append({
        "tokens": shape[0], "vocabulary": shape[1], "logits": "peaked" if peaked else "random", "rows": rows,
        "rows_with_gradient": field[0].share_of_rows_with_gradient(), "not_run": absent,
        "seconds": time.monotonic() - begin, "clocks": progress.clocks.since(begin),
    })  # fmt: skip


class Prefetching(ours.Ours):
    """Our step that asks the L2 cache for so much of each view of a block's next row."""

    def __init__(self, batch, library, rows, kib):
        super().__init__(batch, library, rows)
        self.name, self.kib = kib, str(kib)

    def run(self):
        os.environ[PREFETCH] = self.kib
        super().run()


def prefetch(progress, library, shape):
    given = os.environ.get(PREFETCH)
    batch = contestants.Batch(*shape, torch.bfloat16, DEVICE, peaked=False)
    try:
        times = in_turn([Prefetching(batch, library, "resident", kib) for kib in PREFETCH_KIB], ROUNDS)
    finally:
        os.environ.pop(PREFETCH, None)
        os.environ.update({} if given is None else {PREFETCH: given})
    progress.found["prefetch"] = {"tokens": shape[0], "vocabulary": shape[1],
                                  "rows": [{"KiB": kib, **found} for kib, found in times.items()]}  # fmt: skip


def measure(progress, library, quick):
    found = progress.found
    if "ceilings" not in found:
        found["ceilings"] = ceilings()
        progress.save()
    shapes = (SHAPES[:1] if quick else SHAPES) if ON_GPU else TINY
    names = {False: "random", True: "peaked"}

    def part(name, work):
        progress.part(name, work)
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()

    def both(shape, with_peers):
        for peaked, kind in names.items():
            part(f"{shape[0]} x {shape[1]}, {kind}", lambda: bench(progress, library, shape, peaked, with_peers))

    both(shapes[0], True)
    part("prefetch", lambda: prefetch(progress, library, shapes[0]))
    part("log-prob level", lambda: found.update(log_prob_level=token_level(library)))
    for shape in shapes[1:]:
        both(shape, False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=200)
    options = parser.parse_args()
    progress = Progress(options.out, options.seconds, {"measured": ON_GPU, "device": device()})
    progress.clocks = Clocks()
    try:
        measure(progress, abi.Library(options.library), options.quick)
    finally:
        progress.clocks.stop()
        progress.save()
    if options.out is None:
        print(json.dumps(progress.found))


if __name__ == "__main__":
    main()
