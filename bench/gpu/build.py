"""librlsd_cuda.so for the machine's own device, by nvcc alone: no CMake, no Node.

Several compilers may be there. A library holds its compiler's CUDA runtime, and a driver serves runtimes of its own
version of CUDA and older: the newest that the driver serves is taken. Where none can build it, the library that came
along in the bundle is used.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys

from session import ROOT

BROUGHT = ROOT / "brought/librlsd_cuda.so"
# The driver asked by its own functions: nvidia-smi may not be there, and counts the devices that are hidden too. 75, 76:
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR. A version of 13000 is 13.0.
DRIVER = """import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
version, device, major, minor, name = *(ctypes.c_int() for _ in range(4)), ctypes.create_string_buffer(128)
cuda.cuDriverGetVersion(ctypes.byref(version))
found = {"version": [version.value // 1000, version.value % 1000 // 10]}
if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0:
    cuda.cuDeviceGetName(name, 128, device)
    for number, value in ((75, major), (76, minor)):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    found.update(name=name.value.decode(), compute_cap=f"{major.value}.{minor.value}")
print(json.dumps(found))"""


QUICK = 10  # seconds for a question to a tool


INCLUDE = re.compile(r'^#include "((?:core|cuda)/[^"]+)"', re.MULTILINE)
BLANK = re.compile(r"/\*[\s\S]*?\*/|//[^\n]*|\s+")


def sources():
    """A hash of what kernels are compiled from, comments and spaces apart: a report speaks of these alone. The same as that of
    scripts/passed-kernels.cjs, which writes passed_kernels.h."""
    waiting, found = [f"cuda/{path.name}" for path in (ROOT / "csrc/cuda").glob("*.cu")], {}
    while waiting:
        name = waiting.pop()
        if name not in found and name != "cuda/passed_kernels.h":
            text = (ROOT / "csrc" / name).read_text(encoding="utf-8")
            found[name] = BLANK.sub("", text)
            waiting += INCLUDE.findall(text)
    flags = json.loads((ROOT / "csrc/sources.json").read_text())["cudaFlags"]
    words = [*flags, *(f"{name} {found[name]}" for name in sorted(found))]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def places():
    """Folders of CUDA's tools: often where CUDA is and not on the PATH. CUDA_HOME names the only one."""
    if os.environ.get("CUDA_HOME"):
        return [pathlib.Path(os.environ["CUDA_HOME"], "bin")]
    homes = ["/usr/local/cuda", "/opt/cuda", *sorted(pathlib.Path("/usr/local").glob("cuda-*"), reverse=True)]
    homes += [home for path in sys.path for home in pathlib.Path(path).glob("nvidia/cu1*")]
    return [pathlib.Path(home, "bin") for home in homes]


def tool(name):
    """A tool's path, or None."""
    found = [shutil.which(name), *(str(place / name) for place in places() if (place / name).is_file())]
    return next((path for path in found if path), None)


def compilers(session):
    """{path: (major, minor)} of every nvcc."""
    found = {}
    for path in [os.environ.get("NVCC"), shutil.which("nvcc"), *(str(place / "nvcc") for place in places())]:
        if not path or os.path.realpath(path) in map(os.path.realpath, found):
            continue
        status, words = session.run([path, "--version"], limit=QUICK)
        version = re.search(r"release (\d+)\.(\d+)", words)
        if status == 0 and version:
            found[path] = (int(version[1]), int(version[2]))
    return found


def driver(session):
    """The version of CUDA that the driver is of, and name and compute_cap of its first device; None: there is no driver."""
    status, words = session.run([sys.executable, "-c", DRIVER], limit=QUICK)
    return json.loads(words) if status == 0 else None


def choose(found, version):
    """The newest compiler whose runtime a driver of that version serves: those of its own major version, by the rules of
    minor version compatibility, and all before. Else the newest of all."""
    served = {path: release for path, release in found.items() if version is None or release[0] <= version[0]}
    best = served or found
    return max(best, key=best.get, default=None)


def architecture(device):
    """The device's own machine code alone: what is built here runs here."""
    number = (device or {}).get("compute_cap", "9.0").replace(".", "")
    name = "90a" if number == "90" else number
    return ["-gencode", f"arch=compute_{name},code=sm_{name}"]


def compile_all(session, nvcc, target, folder):
    """None, or what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    lists = json.loads((ROOT / "csrc/sources.json").read_text())
    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    objects = {source: folder / f"{source.stem}.o" for source in sources}
    failed = []

    def one(source):
        if failed:
            return
        status, words = session.run([nvcc, *lists["cudaFlags"], *target, "-c", str(source), "-o", str(objects[source])])
        if status != 0:
            failed.append(words)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        list(pool.map(one, sources))
    if failed:
        return failed[0]
    command = [nvcc, *lists["cudaLinkFlags"], *target, *map(str, objects.values())]
    status, words = session.run([*command, "-o", str(folder / "librlsd_cuda.so")])
    return None if status == 0 else words


def build(session, folder):
    """(library or None, what the report says of it)."""
    found, device = compilers(session), driver(session)
    nvcc = choose(found, device and device["version"])
    said = {"compilers": {path: "{}.{}".format(*release) for path, release in found.items()}, "nvcc": nvcc}
    problem = "no nvcc" if nvcc is None else compile_all(session, nvcc, architecture(device), folder)
    if problem is None:
        return folder / "librlsd_cuda.so", {**said, "library": "built here"}
    said["problem"] = problem[-4000:]
    if BROUGHT.is_file():
        return BROUGHT, {**said, "library": "brought along"}
    return None, {**said, "library": "none"}
