"""npm run gpu:check: builds, checks and times the CUDA backend on this machine; one JSON, a short table last.

    python3 bench/gpu/run.py [--out FILE] [--library FILE] [--minutes 8] [--quick]

Needs a GPU, nvcc, CMake, NumPy and PyTorch; no Node, no npm, no network. --library takes another build instead of making
one: over librlsd_cpu.so the harness runs anywhere. What the machine refuses is reported in its own words as not run.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXPERIMENTAL = {"RLSD_CUDA_EXPERIMENTAL": "1"}
# Checks small enough for tools that slow a kernel a hundredfold.
REDUCED = ["rows_argument", "extreme_rows", "bad_rows", "refusals", "equal_teacher", "log_probs_level"]


class Session:
    def __init__(self, minutes):
        self.deadline = time.monotonic() + 60 * minutes
        self.report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}

    def left(self, at_most):
        return max(1.0, min(at_most, self.deadline - time.monotonic()))

    def run(self, command, at_most, env=None):
        """(exit status or None, output). None: it could not start, or ran out of time."""
        try:
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=self.left(at_most), text=True, errors="replace",
            )  # fmt: skip
            return done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            return None, "ran out of time"
        except OSError as error:
            return None, str(error)


def machine(session):
    fields = "name,driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,temperature.gpu,memory.total"
    status, gpu = session.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], 20)
    found = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    found["gpu"] = dict(zip(fields.split(","), gpu.strip().split("\n")[0].split(", "))) if status == 0 else None
    status, nvcc = session.run(["nvcc", "--version"], 20)
    found["nvcc"] = nvcc.strip().split("\n")[-1] if status == 0 else None
    for module in ("torch", "triton", "numpy"):
        status, version = session.run([sys.executable, "-c", f"import {module}; print({module}.__version__)"], 60)
        found[module] = version.strip() if status == 0 else None
    return found


def build(session, folder):
    """librlsd_cuda.so for this machine's device, or None and why not."""
    if shutil.which("nvcc") is None or shutil.which("cmake") is None:
        return None, "not run: no nvcc or no cmake"
    status, capability = session.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], 20)
    number = capability.strip().split("\n")[0].replace(".", "") if status == 0 else "90"
    architecture = "90a" if number == "90" else number
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DRLSD_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={architecture}"]
    for command in (configure, ["cmake", "--build", str(folder), "--target", "rlsd_cuda", "rlsd_cpu", "-j", "8"]):
        status, output = session.run(command, 240)
        if status != 0:
            return None, output[-4000:]
    return folder / "librlsd_cuda.so", None


def check(session, library, env):
    status, output = session.run([sys.executable, str(HERE / "checks.py"), str(library)], 120, {**EXPERIMENTAL, **env})
    found = {}
    for line in output.split("\n"):
        name, _, verdict = line.partition(": ")
        if verdict == "passed":
            found[name] = "passed"
    if status != 0:
        found["failed"] = output[-6000:]
    return found


def sanitize(session, library):
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"memcheck": "not run: no compute-sanitizer", "racecheck": "not run: no compute-sanitizer"}
    found = {}
    for name in ("memcheck", "racecheck"):
        command = [tool, "--tool", name, "--error-exitcode", "9", sys.executable, str(HERE / "checks.py"), str(library)]
        status, output = session.run(command + REDUCED, 75, EXPERIMENTAL)
        last = output.strip().split("\n")[-1]
        refused = status is None or "not supported" in output or "Unable" in output or "ERROR SUMMARY" not in output and "RACECHECK SUMMARY" not in output
        found[name] = "passed" if status == 0 and not refused else f"not run: {last}" if refused else output[-4000:]
    return found


def passed_kernels(report):
    """Kernels whose every check passed: what dispatch may use by default."""
    clean = lambda name: bool(report["checks"].get(name)) and "failed" not in report["checks"][name]
    sound = all(not isinstance(v, str) or v == "passed" or v.startswith("not run") for v in report["sanitizer"].values())
    found = []
    if report["backend"] == "cuda" and report["machine"]["gpu"] and sound:
        found += ["policy-tokens", "rows-plain"] if clean("plain rows") else []
        found += ["rows-resident"] if clean("plain rows") and clean("resident rows") else []
    return found


def table(report):
    lines = []
    for name, checks in report["checks"].items():
        failed = "failed" in checks
        lines.append(f"{name:15} {sum(v == 'passed' for v in checks.values())} checks passed{', SOME FAILED' if failed else ''}")
    for name, verdict in report["sanitizer"].items():
        lines.append(f"{name:15} {verdict if len(verdict) < 100 else 'FAILED, see the report'}")
    timing = report["timing"]
    if "ceilings" not in timing:
        return lines + [f"timing          {timing['not_run'][-200:]}"]
    if not timing["measured"]:
        lines.append("No GPU: the figures below only show that the harness runs.")
    ceilings = timing["ceilings"]
    lines.append(f"copy {ceilings['copy']['GB/s']:.0f} GB/s, bf16 product {ceilings['bf16 product']['TFLOP/s']:.0f} TFLOP/s")
    for shape in timing["shapes"]:
        lines.append(f"\n{shape['tokens']} x {shape['vocabulary']} bf16, {shape['logits']} logits")
        ours = min(row["ms"] for row in shape["rows"] if row["name"].startswith("rlsd"))
        for row in shape["rows"]:
            lines.append(f"  {row['name']:48} {row['ms']:9.3f} ms  {100 * row['of_floor']:5.1f}% of copy  {row['ms'] / ours:5.2f}x")
        lines += [f"  not run: {name}: {why}" for name, why in shape["not_run"].items()]
    return lines + [f"not run: {text}" for text in timing["not_run"]]


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
    report["machine"] = machine(session)
    library, problem = (options.library, None) if options.library else build(session, options.build)
    report["build"] = problem or "passed"
    if library is None:
        print(json.dumps(report, indent=2))
        sys.exit(f"no library: {problem}")
    status, name = session.run([sys.executable, "-c", "import sys; sys.path.insert(0, 'bench/gpu'); import abi; "
                                f"print(abi.Library({str(library)!r}).name)"], 60)  # fmt: skip
    report["backend"] = name.strip() if status == 0 else f"could not be opened: {name[-500:]}"
    variants = {"resident rows": {}, "plain rows": {"RLSD_CUDA_ROWS": "plain"}} if report["backend"] == "cuda" else {"checks": {}}
    report["checks"] = {variant: check(session, library, env) for variant, env in variants.items()}
    report["sanitizer"] = sanitize(session, library) if report["backend"] == "cuda" else {}
    seconds = session.left(220) - 15
    command = [sys.executable, str(HERE / "timing.py"), str(library), "--seconds", str(seconds)]
    status, output = session.run(command + (["--quick"] if options.quick else []), seconds + 60, EXPERIMENTAL)
    last = output.strip().split("\n")[-1]
    report["timing"] = json.loads(last) if status == 0 else {"not_run": output[-4000:]}
    report["passed"] = passed_kernels(report)
    gpu = (report["machine"]["gpu"] or {}).get("name", report["backend"]).replace(" ", "-").lower()
    out = options.out or ROOT / "bench/results" / f"{report['date'][:10]}-{gpu}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(table(report)))
    print(f"\nwritten to {out}; kernels passed: {', '.join(report['passed']) or 'none'}")
    sys.exit(any("failed" in checks for checks in report["checks"].values()))


if __name__ == "__main__":
    main()
