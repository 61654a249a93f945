"""npm run gpu:check: builds, checks and times the CUDA backend on this machine; one JSON, a short table last.

    python3 bench/gpu/run.py [--out FILE] [--library FILE] [--minutes 8] [--quick]

Needs a GPU, nvcc, CMake, NumPy and PyTorch; no Node, no npm, no network. Where Node and the project's packages are too,
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
from session import ROOT, Session

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


def tool(name):
    """A tool's path: CUDA's are often where CUDA is and not on the PATH."""
    place = pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", name)
    return shutil.which(name) or (str(place) if place.is_file() else None)


def machine(session):
    fields = "name,driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    fields += ",memory.total,compute_cap"
    status, gpu = session.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    found = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    found["gpu"] = dict(zip(fields.split(","), gpu.strip().split("\n")[0].split(", "))) if status == 0 else None
    status, nvcc = session.run([tool("nvcc") or "nvcc", "--version"])
    found["nvcc"] = nvcc.strip().split("\n")[-1] if status == 0 else None
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
    origin = folder / "ORIGIN.json"
    return json.loads(origin.read_text()) if origin.is_file() else "a folder without ORIGIN.json"


def build(session, folder):
    """librlsd_cuda.so for this machine's device, or None and why not."""
    nvcc, cmake = tool("nvcc"), tool("cmake")
    if nvcc is None or cmake is None:
        return None, "not run: no nvcc or no cmake"
    status, capability = session.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    number = capability.strip().split("\n")[0].replace(".", "") if status == 0 else "90"
    architecture = "90a" if number == "90" else number
    configure = [cmake, "-S", str(ROOT), "-B", str(folder), "-DRLSD_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={architecture}",
                 f"-DCMAKE_CUDA_COMPILER={nvcc}"]  # fmt: skip
    for command in (configure, [cmake, "--build", str(folder), "--target", "rlsd_cuda", "-j", str(os.cpu_count() or 2)]):
        status, output = session.run(command)
        if status != 0:
            return None, output[-4000:]
    return folder / "librlsd_cuda.so", None


def backend(session, library):
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import abi; print(abi.Library({str(library)!r}).name)"
    status, name = session.run([sys.executable, "-c", script])
    return name.strip() if status == 0 else f"could not be opened: {name[-500:]}"


def check(session, library, env, names):
    command = [sys.executable, str(HERE / "checks.py"), str(library), *names]
    status, output = session.run(command, {**EXPERIMENTAL, **env})
    found = {}
    for line in output.split("\n"):
        name, _, verdict = line.partition(": ")
        if verdict == "passed":
            found[name] = "passed"
    if status != 0:
        found["failed"] = output[-6000:]
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


def time_everything(session, library, quick):
    """The report of timing.py, of as much of it as was done. A peer that ends the process is left out of another try."""
    out, skipped = session.out.with_suffix(".timing"), []
    while True:
        command = [sys.executable, str(HERE / "timing.py"), str(library), "--out", str(out)]
        command += ["--seconds", str(max(1.0, session.left() - 30)), *(["--quick"] if quick else [])]
        command += [word for name in skipped for word in ("--skip", name)]
        status, output = session.run(command, EXPERIMENTAL)
        found = json.loads(out.read_text()) if out.is_file() else {}
        out.unlink(missing_ok=True)
        culprit = found.get("entering")
        if culprit is None or status is None or len(skipped) == 2:
            break
        skipped.append(culprit)
    return found if status == 0 else {**found, "output": output[-4000:]}


def sanitized(report):
    return all(v == "passed" or v.startswith("not run") for v in report["sanitizer"].values())


def keeps_rows(report):
    """Whether the device has clusters to keep rows with."""
    return float((report["machine"]["gpu"] or {}).get("compute_cap", 9)) >= 9


def sound(report):
    """No check, memory check or test of the API found anything wrong."""
    needed = [checks for name, checks in report["checks"].items() if name != "resident rows by name" or keeps_rows(report)]
    return sanitized(report) and not any(checks.get("failed") for checks in needed)


def passed_kernels(report):
    """Kernels whose every check passed: what dispatch may use by default."""
    clean = lambda name: bool(report["checks"].get(name)) and not report["checks"][name].get("failed")
    on_gpu = report["backend"] == "cuda" and report["machine"]["gpu"] is not None
    if not on_gpu or not sanitized(report) or not clean("public API") or not clean("plain rows"):
        return []
    resident = clean("resident rows") and clean("resident rows by name")
    return ["policy-tokens", "rows-plain"] + (["rows-resident"] if resident else [])


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
    report["passed"] = passed_kernels(report)
    session.save()
    report["timing"] = session.part("timing", lambda: time_everything(session, library, quick)) or {}
    report["verdicts"] = verdicts.verdicts(report["timing"])
    session.save()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--library", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-gpu")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    session = Session(options.minutes)
    report = session.report
    report.update(machine=session.part("machine", lambda: machine(session)) or {"gpu": None}, checks={}, sanitizer={})
    name = (report["machine"]["gpu"] or {}).get("name", "no-gpu").replace(" ", "-").lower()
    session.out = (options.out or ROOT / "bench/results" / f"{report['date'][:10]}-{name}.json").resolve()
    report["peers"] = peers()
    given = options.library and options.library.resolve()
    built = (given, None) if given else session.part("build", lambda: build(session, options.build.resolve()))
    library, problem = built or (None, "failed: see errors")
    report["build"] = problem or ("given" if given else "passed")
    session.save()
    if library is None:
        sys.exit(f"no library: {problem}\nwritten to {session.out}")
    report["backend"] = session.part("backend", lambda: backend(session, library))
    examine(session, library, options.quick)
    print("\n".join(table.lines(report)))
    print(f"\nwritten to {session.out}; kernels passed: {', '.join(report['passed']) or 'none'}")
    sys.exit(not sound(report) or bool(report["errors"]) or "ceilings" not in report["timing"])


if __name__ == "__main__":
    main()
