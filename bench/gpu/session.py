"""A run that must end in time and leave a report: each part has its own limit, and later parts their share."""

import datetime
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Seconds that a part may take at most, and those that it finds left whatever came before it. The second column and what
# is written at the end fit in eight minutes: 475 s.
PARTS = {
    "machine": (45, 25),
    "build": (200, 120),
    "backend": (20, 10),
    "resident rows": (60, 25),
    "plain rows": (60, 25),
    "resident rows by name": (30, 5),
    "memcheck": (40, 15),
    "racecheck": (40, 15),
    "memcheck of wide rows": (40, 15),
    "racecheck of wide rows": (40, 15),
    "public API": (60, 25),
    "timing": (270, 180),
}


# Seconds that a stopped command has to be gone. One that a driver holds cannot be ended: it is left behind.
GRACE = 5


class Stopped(BaseException):
    """The run was told to end: what it has is to be written and said, and nothing more begun."""


def end(process):
    """Ends a command and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass


class Session:
    def __init__(self, minutes):
        self.deadline = time.monotonic() + 60 * minutes
        self.share = minutes / 8
        self.until = self.deadline
        self.out = None
        self.running, self.stopped = set(), None
        self.starting = False  # a command of the main thread, which is not in `running` yet
        now = datetime.datetime.now(datetime.timezone.utc)
        self.report = {"date": now.isoformat(timespec="seconds"), "backend": None, "passed": [], "cut": [], "errors": {}}

    def heed_signals(self):
        """SIGTERM (a caller's timeout), SIGINT and SIGHUP end what runs, and then the run by way of Stopped."""

        def stop(number, _):
            self.stopped = signal.Signals(number).name
            for process in list(self.running):
                end(process)
            if not self.starting:
                raise Stopped(self.stopped)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)

    def save(self):
        if self.out is None:
            return
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.report, indent=1) + "\n")
        partial.replace(self.out)

    def limit(self, name):
        """Seconds for a part that begins now."""
        names = list(PARTS)
        later = sum(PARTS[other][1] for other in names[names.index(name) + 1 :])
        return max(1.0, min(self.share * PARTS[name][0], self.deadline - time.monotonic() - self.share * later))

    def part(self, name, work):
        """What `work` gives, or None where it failed; the report is on disk after it in any case."""
        self.name, begin = name, time.monotonic()
        self.until = begin + self.limit(name)
        try:
            return work()
        except Exception:
            self.report["errors"][name] = traceback.format_exc(limit=-3)
        finally:
            seconds = round(time.monotonic() - begin, 1)
            self.report.setdefault("seconds", {})[name] = seconds
            print(f"{name}: {seconds} s", file=sys.stderr, flush=True)
            self.save()

    def left(self):
        return max(1.0, self.until - time.monotonic())

    def start(self, command, env, output):
        """A session of its own, output to a file: compilers that it started end with it, and none holds a pipe."""
        is_main = threading.current_thread() is threading.main_thread()
        self.starting = self.starting or is_main
        try:
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
            self.running.add(process)
        finally:
            self.starting = self.starting and not is_main
        if self.stopped is not None:  # meanwhile, before anybody knew of it
            end(process)
            raise Stopped(self.stopped)
        return process

    def run(self, command, env=None, limit=math.inf):
        """(exit status or None, output). None: it could not start, or it or the part ran out of time."""
        limit = min(limit, self.left())
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            try:
                process = self.start(command, env, output)
            except OSError as error:
                return None, str(error)
            try:
                status = process.wait(limit)
            except BaseException as error:
                end(process)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                status = None
            finally:
                self.running.discard(process)
            output.seek(0)
            text = output.read()
        if status is None:
            self.report["cut"].append(f"{self.name}: stopped after {limit:.0f} s")
            text += f"\nran out of time after {limit:.0f} s"
        return status, text
