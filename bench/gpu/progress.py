"""A report of timings that is on disk after each part, and that another process goes on from."""

import json
import os
import threading
import time

HUNG = 4  # exit status: a contestant did not come back from its first run


class Progress:
    """`found` is the report. "parts" names those that were begun, "running" the one under way, "entering" the contestant that
    is tried: where a process ended in the middle, these say what is left out of the next one: "left_out", {contestant: why}."""

    def __init__(self, path, seconds, new):
        self.path, self.deadline, self.watch = path, time.monotonic() + seconds, None
        self.found = {**new, "shapes": [], "not_run": [], "parts": [], "left_out": {}}
        if path is not None and path.is_file():
            self.found.update(json.loads(path.read_text()))
            self._give_up_on_the_last()

    def _give_up_on_the_last(self):
        running, culprit = self.found.pop("running", None), self.found.pop("entering", None)
        words = self.found.pop("lost", "ended the process")
        if culprit is not None:
            self.found["left_out"][culprit] = words
            self.found["parts"].remove(running)  # once more, without it
        elif running is not None:
            self.found["not_run"].append(f"{running}: {words}")

    def save(self):
        if self.path is not None:
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.found))
            partial.replace(self.path)

    def enter(self, name, seconds):
        """A contestant's first run begins, which ends the process after so many seconds: a kernel that reads beyond its memory
        loses this process its device, and one whose threads wait for each other never ends."""
        self.entered()
        self.found["entering"] = name
        self.save()
        self.watch = threading.Timer(seconds, os._exit, [HUNG])
        self.watch.daemon = True
        self.watch.start()

    def entered(self):
        self.found.pop("entering", None)
        if self.watch is not None:
            self.watch.cancel()

    def part(self, name, work):
        """Runs a part while there is time, once; what stops it is its reason for not running. Gives its value or None."""
        if name in self.found["parts"]:
            return None
        if time.monotonic() > self.deadline:
            self.found["not_run"].append(f"{name}: no time left")
            return None
        self.found["parts"].append(name)
        self.found["running"] = name
        self.save()
        value = None
        try:
            value = work()
        except Exception as error:
            if is_lost(error):
                self.found["lost"] = str(error)[:300]
                self.save()
                raise  # who is to blame stays on disk
            self.found["not_run"].append(f"{name}: {type(error).__name__}: {error}"[:300])
        self.entered()
        self.found.pop("running", None)
        self.save()
        return value


def is_lost(error):
    """Whether this process has lost its device, in our words or PyTorch's: nothing that comes after can run in it."""
    words = str(error)
    return "CUDA context of this process is lost" in words or ("CUDA error" in words and "out of memory" not in words)
