"""npm run gpu:check: builds, checks and times the CUDA backend on this machine; one JSON, a short table last.

    python3 bench/gpu/run.py [--out FILE] [--library FILE] [--minutes 8] [--quick]

Needs a GPU, nvcc, NumPy and PyTorch; no CMake, no Node, no npm, no network. Where Node and the project's packages are too,
the public API is driven on the device as well. --library takes another build instead of making one: over librlsd_cpu.so
the harness runs anywhere. What the machine refuses is reported in its own words as not run. The JSON is on disk after
each part, whatever becomes of the next.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import sys

import table
import verdicts
from build import build, driver, sources, tool
from session import ROOT, Session, Stopped

HERE = pathlib.Path(__file__).resolve().parent
EXPERIMENTAL = {"RLSD_CUDA_EXPERIMENTAL": "1"}
# Checks small enough for tools that slow a kernel a hundredfold. Only wide rows are shared by the blocks of a cluster.
REDUCED = {"": ["rows_argument", "extreme_rows", "bad_rows", "refusals", "equal_teacher", "log_probs_level"],
           " of wide rows": ["wide_rows"]}  # fmt: skip
# Each variant's environment and checks (none named: all). The first takes whatever kernel suits a row; by name a call
# whose rows cannot be kept is refused, so that the resident kernel has run where this passes.
VARIANTS = {
    "resident rows": ({}, []),
    "plain rows": ({"RLSD_CUDA_ROWS": "plain"}, []),
    "resident rows by name": ({"RLSD_CUDA_ROWS": "resident"}, ["wide_rows"]),
}
MODULES = ("torch", "triton", "numpy")


def machine(session):
    fields = "name,driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    fields += ",memory.total,compute_cap"
    status, gpu = session.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], limit=20)
    found = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    found["gpu"] = dict(zip(fields.split(","), gpu.strip().split("\n")[0].split(", "))) if status == 0 else None
    found["driver"] = driver(session)
    if found["gpu"] is None and "name" in (found["driver"] or {}):
        found["gpu"] = {key: found["driver"][key] for key in ("name", "compute_cap")}
    script = "import importlib, sys\nfor name in sys.argv[1:]:\n try: print(name, importlib.import_module(name).__version__)"
    script += "\n except Exception: pass"
    _, versions = session.run([sys.executable, "-c", script, *MODULES])
    found.update(dict.fromkeys(MODULES), **dict(re.findall(rf"^({'|'.join(MODULES)}) (\S+)$", versions, re.MULTILINE)))
    return found


def peers():
    """Where peers come from, with versions and commits where the folder says them."""
    folder = pathlib.Path(os.environ.get("RLSD_PEERS") or ROOT / "peers")
    if not folder.is_dir():
        return "installed packages, where there are any"
    try:
        return json.loads((folder / "ORIGIN.json").read_text())
    except (OSError, ValueError) as error:
        return f"a folder without an ORIGIN.json that can be read: {error}"


# What a library is, and the device that it finds; as JSON.
DESCRIBE = """import json, sys
sys.path.insert(0, sys.argv[1])
import abi
library, device = abi.Library(sys.argv[2]), None
try:
    info = library.device_info() if library.device_count() > 0 else None
    device = info and {"name": info.name.decode(), "compute_cap": f"{info.compute_major}.{info.compute_minor}",
                       "memory": info.memory_bytes, "driver": info.driver_version, "runtime": info.runtime_version}
except Exception as error:
    device = {"problem": str(error)}
print(json.dumps({"name": library.name, "device": device}))"""


def backend(session, library):
    """{name, device} of the library, or why it cannot be opened for a name."""
    status, words = session.run([sys.executable, "-c", DESCRIBE, str(HERE), str(library)], EXPERIMENTAL)
    return json.loads(words) if status == 0 else {"name": f"could not be opened: {words[-500:]}", "device": None}


CHECK_LINE = re.compile(r"^([a-z][a-z_]*): ?", re.MULTILINE)


def verdicts_of(output):
    """{check: what came of it} in the order in which they began."""
    found = CHECK_LINE.split(output)
    return {name: words.strip() for name, words in zip(found[1::2], found[2::2])}


def check(session, library, env, names, tries=4):
    """{check: "passed" or what went wrong}, under "failed" all that did. A check that ends its process, or loses it the
    device, is one that failed; those after it have another process."""
    found, words, after = {}, "", []
    for _ in range(tries):
        status, output = session.run([sys.executable, str(HERE / "checks.py"), str(library), *names, *after],
                                     {**EXPERIMENTAL, **env})  # fmt: skip
        verdicts = verdicts_of(output)
        found.update(verdicts)
        words = output
        if status in (0, 1, None) or not verdicts:
            break
        after = ["--after", list(verdicts)[-1]]
    failed = [f"{name}: {verdict[-1500:]}" for name, verdict in found.items() if verdict != "passed"]
    if failed or status != 0:
        found["failed"] = "\n".join(failed) or words[-6000:]
    return found


def sanitize(session, library, name, names):
    found = tool("compute-sanitizer")
    if found is None:
        return "not run: no compute-sanitizer"
    kind = name.split(" ")[0]
    command = [found, "--tool", kind, "--error-exitcode", "9", sys.executable, str(HERE / "checks.py"), str(library)]
    status, output = session.run(command + names, EXPERIMENTAL)
    refused = status is None or "not supported" in output or "Unable" in output or " SUMMARY: " not in output
    if refused:
        words = [line for line in output.split("\n") if "not supported" in line or "Unable" in line or "rror" in line]
        return f"not run: {(words or output.strip().split(chr(10)))[-1].strip()[:140]}"
    # Hazards that are only warnings leave the exit status alone.
    return "passed" if status == 0 and not re.search(r" SUMMARY: [1-9]", output) else output[-4000:]


def public_api(session, library, backend_name):
    """The tests that drive the TypeScript API on a device, over this library."""
    node = shutil.which("node")
    needed = {"CUDA library": backend_name == "cuda", "Node": node, "node_modules": (ROOT / "node_modules/jest").is_dir(),
              "addon (npm run build:addon)": (ROOT / "build/Release/rlsd.node").is_file()}  # fmt: skip
    for name, there in needed.items():
        if not there:
            return {"not_run": f"no {name}"}
    env = {**EXPERIMENTAL, "RLSD_TEST_CUDA_LIBRARY": str(library)}
    status, output = session.run([node, str(ROOT / "scripts/jest.cjs"), "test/cuda-losses.test.ts"], env)
    counts = re.search(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", output, re.MULTILINE)
    found = dict(zip(("passed", "failed", "skipped"), (int(n or 0) for n in counts.groups()))) if counts else {"passed": 0}
    if status != 0 or found["passed"] == 0:
        found = {**found, "failed": max(1, found.get("failed", 0)), "output": output[-6000:]}
    return found


def time_everything(session, library, quick, tries=4):
    """The report of timing.py, of as much of it as was done. It goes on from what is on disk: what ended the process, a
    contestant or a part, is left out of the next try."""
    out = session.out.with_suffix(".timing")
    out.unlink(missing_ok=True)
    status = output = None
    try:
        for _ in range(tries):
            command = [sys.executable, str(HERE / "timing.py"), str(library), "--out", str(out)]
            command += ["--seconds", str(max(1.0, session.left() - 30)), *(["--quick"] if quick else [])]
            status, output = session.run(command, EXPERIMENTAL)
            if status in (0, None) or not out.is_file():
                break
    finally:
        found = json.loads(out.read_text()) if out.is_file() else {}
        out.unlink(missing_ok=True)
        if status != 0:
            found["output"] = (output or "stopped")[-4000:]
        session.report["timing"] = found


def sanitized(report):
    return all(v == "passed" or v.startswith("not run") for v in report["sanitizer"].values())


def keeps_rows(report):
    """Whether the device has clusters to keep rows with."""
    capability = re.match(r"(\d+)\.", (report.get("device") or {}).get("compute_cap", "9.0"))
    return capability is None or int(capability[1]) >= 9


def sound(report):
    """No check, memory check or test of the API found anything wrong."""
    needed = [checks for name, checks in report["checks"].items() if name != "resident rows by name" or keeps_rows(report)]
    return sanitized(report) and not any(checks.get("failed") for checks in needed)


def judged_kernels(report):
    """Kernels of whose default this machine can tell: the resident one is that of 9.x, newer devices compile it anew."""
    if report["backend"] != "cuda" or report["machine"]["gpu"] is None:
        return []
    capability = (report.get("device") or {}).get("compute_cap", "")
    return ["policy-tokens", "rows-plain"] + (["rows-resident"] if capability.startswith("9.") else [])


def passed_kernels(report):
    """Kernels whose every check passed: what dispatch may use by default."""
    clean = lambda name: bool(report["checks"].get(name)) and not report["checks"][name].get("failed")
    if not sanitized(report) or not clean("public API") or not clean("plain rows"):
        return []
    resident = clean("resident rows") and clean("resident rows by name")
    return [kernel for kernel in judged_kernels(report) if kernel != "rows-resident" or resident]


def examine(session, library, quick):
    """Checks, then figures; what a part that failed leaves out counts as a failure."""
    report = session.report
    on_cuda = report["backend"] == "cuda"
    for rows, (env, names) in VARIANTS.items():
        if on_cuda or not env:
            found = session.part(rows, lambda: check(session, library, env, names))
            report["checks"][rows if on_cuda else "checks"] = found or {"failed": "see errors"}
    for suffix, names in REDUCED.items() if on_cuda else ():
        for name in ("memcheck" + suffix, "racecheck" + suffix):
            found = session.part(name, lambda: sanitize(session, library, name, names))
            report["sanitizer"][name] = found or "failed: see errors"
    found = session.part("public API", lambda: public_api(session, library, report["backend"]))
    report["checks"]["public API"] = found or {"failed": "see errors"}
    report["judged"], report["passed"] = judged_kernels(report), passed_kernels(report)
    session.save()
    session.part("timing", lambda: time_everything(session, library, quick))


def place(report):
    """A file of its own for each run, which says on what it was."""
    gpu = (report["machine"]["gpu"] or {}).get("name", "no-gpu").replace(" ", "-").lower()
    return ROOT / "bench/results" / f"{report['date'][:19].replace(':', '')}-{gpu}.json"


def work(session, options):
    """Everything in turn; what a part found is in the report before the next begins."""
    report = session.report
    report["machine"] = session.part("machine", lambda: machine(session)) or {"gpu": None}
    session.out = session.out or place(report)
    report["peers"] = peers()
    library = options.library and options.library.resolve()
    report["build"], report["sources"] = {"library": "given"}, None
    if library is None:
        built = session.part("build", lambda: build(session, options.build.resolve()))
        library, report["build"] = built or (None, {"library": "none", "problem": "see errors"})
        report["sources"] = sources()
    session.save()
    if library is None:
        report["errors"]["build"] = report["build"]["problem"]
        return
    opened = session.part("backend", lambda: backend(session, library)) or {"name": "could not be opened", "device": None}
    report["backend"], report["device"] = opened["name"], opened["device"]
    if opened["name"] == "cuda" and "compute_cap" not in (opened["device"] or {}):
        report["device"] = opened["device"] or {"problem": "The library finds no device."}
        report["errors"]["backend"] = report["device"]["problem"]
        return
    examine(session, library, options.quick)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--library", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-gpu")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    session = Session(options.minutes)
    session.heed_signals()
    report = session.report
    report.update(machine={"gpu": None}, checks={}, sanitizer={}, timing={}, verdicts={})
    session.out = options.out and options.out.resolve()
    stopped = False
    try:
        work(session, options)
    except Stopped as signal:
        stopped = True
        report["cut"].append(f"{session.name}: the run was told to end by {signal}")
    session.out = session.out or place(report)
    report["verdicts"] = verdicts.verdicts(report["timing"])
    session.save()
    print("\n".join(table.lines(report)))
    print(f"\nwritten to {session.out}; kernels passed: {', '.join(report['passed']) or 'none'}")
    sys.exit(stopped or not sound(report) or bool(report["errors"]) or "ceilings" not in report["timing"])


if __name__ == "__main__":
    main()
