"""The device's clock: times of calls on it, and what its own clocks were meanwhile."""

import math
import os
import shutil
import statistics
import subprocess
import threading
import time

import torch

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
AHEAD = 2_000_000  # cycles, about a millisecond: the device waits so long while the host enqueues


def elapsed(run, ahead=AHEAD):
    """Milliseconds that the device spends on what `run` enqueues. The host is ahead of it, so that no launch is waited
    for. Without a GPU: the host's time."""
    if not ON_GPU:
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(ahead)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def synchronize():
    if ON_GPU:
        torch.cuda.synchronize()


def summary(times):
    times = sorted(times)
    pick = lambda share: times[min(len(times) - 1, int(share * len(times)))]
    return {"ms": statistics.median(times), "p20": pick(0.2), "p80": pick(0.8), "runs": len(times)}


def reason(error):
    return f"{type(error).__name__}: {error}"[:300]


def relative(got, expected):
    """The difference of two tensors as a share; as a word where it is no number, which JSON has none for."""
    found = ((got - expected).norm() / expected.norm()).item()
    return found if math.isfinite(found) else str(found)


def in_turn(field, rounds, warm_up=2, time_one=lambda entrant: elapsed(entrant.run), absent=None):
    """{name: summary}: one run of each in turn, to and fro, so that clocks sag for all alike. A peer that fails leaves the
    field, with its reason in `absent`."""
    times, running = {entrant.name: [] for entrant in field}, list(field)
    for turn in range(warm_up + rounds):
        for entrant in list(running) if turn % 2 == 0 else running[::-1]:
            try:
                entrant.prepare()
                spent = time_one(entrant)
                entrant.forget()
            except Exception as error:
                if absent is None or not entrant.peer:
                    raise
                absent[entrant.name] = reason(error)
                del times[entrant.name]
                running.remove(entrant)
                continue
            if turn >= warm_up:
                times[entrant.name].append(spent)
    return {name: summary(found) for name, found in times.items()}


def number(word):
    """None: a field that this machine does not report."""
    try:
        return float(word)
    except ValueError:
        return None


class Clocks:
    """Reads nvidia-smi twice a second while the work goes on; `since` sums up what it said."""

    FIELDS = ["clocks.sm", "clocks.mem", "power.draw", "temperature.gpu"]

    def __init__(self):
        self.samples = []
        self.process = None
        tool = shutil.which("nvidia-smi")
        if not ON_GPU or tool is None:
            return
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        command = [tool, f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits", "-lms", "500",
                   "-i", device]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.samples.append((time.monotonic(), [number(word) for word in line.split(",")]))

    def since(self, begin):
        """{field: [least, median, most]} of what was read since then."""
        rows = [values for when, values in list(self.samples) if when >= begin]
        columns = [[value for value in column if value is not None] for column in zip(*rows)]
        spread = lambda column: [min(column), statistics.median(column), max(column)]
        return {name: spread(column) for name, column in zip(self.FIELDS, columns) if column}

    def stop(self):
        if self.process is not None:
            self.process.terminate()
