"""Runs a command on a terminal of its own. argv[1]: JSON {"command": [...], "steps": [[wait, send], ...]}.

Each step waits until `wait` has been shown after what the step before had waited for, then types `send`. Prints JSON: what was shown, and the
exit status (negative: the signal that ended it)."""

import json
import os
import pty
import select
import signal
import sys
import time

LIMIT_S = 60

task = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(task["command"][0], task["command"])

shown = b""
end = time.monotonic() + LIMIT_S


def read():
    """Takes what is shown next; False once there is no more."""
    global shown
    if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
        os.kill(pid, signal.SIGKILL)
        return False
    try:
        data = os.read(terminal, 65536)
    except OSError:  # on Linux the end of a terminal
        return False
    shown += data
    return data != b""


at = 0
for wait, send in task["steps"]:
    awaited = wait.encode()
    while awaited not in shown[at:]:
        if not read():
            break
    # Not all that is shown by now: one piece may hold what the next step waits for as well.
    at = max(at, shown.find(awaited, at) + len(awaited))
    os.write(terminal, send.encode())
while read():
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({"status": status, "shown": shown.decode("utf-8", "replace")}))
