import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { compiler, emulatedCudaLibrary } from "./support/cpu-library.js";

const run = promisify(execFile);
const cxx = compiler();
const python = ((): string | undefined => {
  try {
    return execFileSync("python3", ["-c", "import numpy, sys; print(sys.executable)"], { encoding: "utf8" }).trim();
  } catch {
    return undefined;
  }
})();

const possible = cxx !== undefined && python !== undefined;
if (!possible) process.stdout.write("not run: gpu:check on an emulated device (no C++ compiler or no NumPy)\n");

const { makeBundle } = createRequire(__filename)("../scripts/gpu-bundle.cjs") as {
  makeBundle(output: string, peers?: string, library?: string): { output: string; megabytes: number };
};

interface Report {
  readonly machine: { readonly gpu: object | null };
  readonly build: { readonly library: string; readonly nvcc?: string; readonly problem?: string };
  readonly checks: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly timing: { readonly output?: string };
  readonly passed: readonly string[];
  readonly judged: readonly string[];
  readonly sources: string | null;
  readonly cut: readonly string[];
  readonly errors: Readonly<Record<string, string>>;
}

const NO_TORCH = "raise ImportError('this machine has no PyTorch')\n";

/** A driver of CUDA 12.4 with one device of compute capability 9.0. */
const DRIVER = `extern "C" {
int cuDriverGetVersion(int* v) { *v = 12040; return 0; }
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* d, int) { *d = 0; return 0; }
int cuDeviceGetName(char* n, int, int) { n[0] = 'X'; n[1] = 0; return 0; }
int cuDeviceGetAttribute(int* v, int which, int) { *v = which == 75 ? 9 : 0; return 0; }
}
`;

(possible ? describe : describe.skip)("gpu:check where there is no GPU", () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-gpu-check-"));
  const bin = join(folder, "bin");
  const place = join(folder, "rlsd-gpu");
  let library = "";

  /** A program of the machine that gpu:check finds. */
  function tool(name: string, script: string): string {
    const path = join(bin, name);
    mkdirSync(bin, { recursive: true });
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  /** An nvcc that compiles nothing, and for a library gives the emulated one. */
  const compilerOf = (version: string) => `case "$*" in
*--version) echo "Cuda compilation tools, release ${version}, V${version}.1" ;;
*) echo "${version} $*" >> ${folder}/compiled
   for last; do :; done; case "$last" in *.so) cp ${library} "$last" ;; *) : > "$last" ;; esac ;;
esac`;

  beforeAll(async () => {
    library = await emulatedCudaLibrary(cxx!);
    const { output } = makeBundle(join(folder, "bundle.tar.gz"));
    execFileSync("tar", ["xzf", output, "-C", folder]);
    mkdirSync(join(folder, "modules"));
    writeFileSync(join(folder, "modules/torch.py"), NO_TORCH);
    writeFileSync(join(folder, "driver.cc"), DRIVER);
    mkdirSync(join(folder, "driver"));
    const driver = join(folder, "driver/libcuda.so.1");
    execFileSync(cxx!, ["-shared", "-fPIC", "-o", driver, join(folder, "driver.cc")]);
  }, 600_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  beforeEach(() => rmSync(bin, { recursive: true, force: true }));

  /** The environment of a bare machine: no Node, no npm, none of what this process has. */
  const bare = (more: Record<string, string> = {}): Record<string, string> => ({
    PATH: `${bin}:/usr/bin:/bin`,
    PYTHONPATH: join(folder, "modules"),
    CUDA_HOME: join(folder, "nowhere"),
    ...more,
  });

  function start(args: readonly string[], env: Record<string, string>): ChildProcess {
    rmSync(join(folder, "report.json"), { force: true });
    const all = [join(place, "bench/gpu/run.py"), "--out", join(folder, "report.json"), ...args];
    return spawn(python!, all, { cwd: place, env, stdio: ["ignore", "pipe", "pipe"] });
  }

  async function finish(child: ChildProcess): Promise<{ status: number | null; text: string; report: Report }> {
    let text = "";
    child.stdout!.on("data", (words) => (text += String(words)));
    const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
    return { status, text, report: JSON.parse(readFileSync(join(folder, "report.json"), "utf8")) as Report };
  }

  /** What a Python expression over the harness's modules gives, as JSON. */
  async function ask(expression: string, before = ""): Promise<unknown> {
    const script = `import json, os, sys, time\nsys.path.insert(0, "${place}/bench/gpu")\n${before}\nprint(json.dumps(${expression}))`;
    const { stdout } = await run(python!, ["-c", script], { env: bare() });
    return JSON.parse(stdout.trim().split("\n").at(-1)!) as unknown;
  }

  it("runs from the bundle on a machine without Node, npm, CMake and PyTorch, and keeps what it found", async () => {
    const vectors = "test/fixtures/vectors";
    expect(readdirSync(join(place, vectors))).toEqual(readdirSync(join(__dirname, "..", vectors)));
    tool("nvcc", compilerOf("13.0"));
    tool("nvcc-12", compilerOf("12.8"));
    const env = bare({ LD_LIBRARY_PATH: join(folder, "driver"), NVCC: join(bin, "nvcc-12") });
    const { status, text, report } = await finish(start([], env));
    const compiled = readFileSync(join(folder, "compiled"), "utf8").trim().split("\n");
    expect(compiled.every((line) => line.startsWith("12.8 ") && line.includes("code=sm_90a"))).toBe(true);
    expect(report.build).toMatchObject({ library: "built here", nvcc: join(bin, "nvcc-12") });
    for (const rows of ["resident rows", "plain rows"]) {
      const checks = Object.values(report.checks[rows]!);
      expect([rows, checks.length > 15, new Set(checks)]).toEqual([rows, true, new Set(["passed"])]);
    }
    expect(report.passed).toEqual(["policy-tokens", "rows-plain", "rows-resident"]);
    expect([report.judged, report.sources]).toEqual([report.passed, expect.stringMatching(/^[0-9a-f]{64}$/)]);
    expect(report.timing.output).toContain("this machine has no PyTorch");
    expect(text).toMatch(/library +built here, nvcc 12\.8[\s\S]*timing +failed: .*no PyTorch/);
    expect(status).toBe(1);
  }, 300_000);

  it("uses the library that came along where none can be built, and says so", async () => {
    tool(
      "nvcc",
      'case "$*" in *--version) echo "release 13.0, V13.0.88" ;; *) echo "no host compiler" >&2; exit 1 ;; esac',
    );
    mkdirSync(join(place, "brought"));
    execFileSync("cp", [library, join(place, "brought/librlsd_cuda.so")]);
    const env = bare({ RLSD_EMULATION_DEVICES: "0" });
    const { status, text, report } = await finish(start([], env));
    rmSync(join(place, "brought"), { recursive: true });
    expect(report.build).toMatchObject({
      library: "brought along",
      problem: expect.stringContaining("no host compiler"),
    });
    expect(report.errors.backend).toBe("The library finds no device.");
    expect(text).toContain("no device for it: The library finds no device.");
    expect(status).toBe(1);
    const { report: none } = await finish(start([], bare()));
    expect(none.errors.build).toContain("no host compiler");
  }, 60_000);

  it("ends in time when a tool hangs, and when it is told to end", async () => {
    tool("nvidia-smi", "sleep 120");
    tool("nvcc", 'case "$*" in *--version) echo "release 13.0" ;; *) sleep 120 ;; esac');
    const begin = Date.now();
    const hung = await finish(start(["--minutes", "0.1"], bare()));
    expect(Date.now() - begin).toBeLessThan(20_000);
    expect(hung.report.cut[0]).toMatch(/^machine: stopped/);
    expect(hung.report.cut.at(-1)).toMatch(/^build: stopped/);
    expect(hung.report.errors.build).toMatch(/ran out of time/);
    const child = start([], bare());
    const ended = finish(child);
    while (!existsSync(`/proc/${child.pid}/task/${child.pid}/children`) || childrenOf(child.pid!).length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const [sleeping] = childrenOf(child.pid!);
    child.kill("SIGTERM");
    const { status, report } = await ended;
    expect(status).toBe(1);
    expect(report.cut).toEqual(["machine: the run was told to end by SIGTERM"]);
    expect(existsSync(`/proc/${sleeping}`)).toBe(false);
  }, 60_000);

  const childrenOf = (pid: number): string[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);

  it("ends a command too that was just being started when the signal came", async () => {
    const early = `import session, subprocess
s = session.Session(8)
s.name, s.until = "early", time.monotonic() + 20
s.heed_signals()
whole, started = subprocess.Popen, []
def slow(*arguments, **options):
    started.append(whole(*arguments, **options))
    os.kill(os.getpid(), session.signal.SIGTERM)
    time.sleep(0.1) # the handler runs before the command is known
    return started[0]
session.subprocess.Popen = slow
try: answer = s.run(["sleep", "20"])
except session.Stopped as signal: answer = str(signal)`;
    expect(await ask("[answer, started[0].poll()]", early)).toEqual(["SIGTERM", -9]);
  });

  it("leaves a command behind that cannot be ended", async () => {
    const stuck = `import session
session.GRACE = 0.2
session.os.killpg = lambda *_: None
s = session.Session(8)
s.name, s.until = "stuck", time.monotonic() + 0.2
begin = time.monotonic()`;
    const answer = await ask('[*s.run(["sleep", "5"]), time.monotonic() - begin < 4, s.report["cut"]]', stuck);
    expect(answer).toEqual([null, expect.stringContaining("ran out of time"), true, ["stuck: stopped after 1 s"]]);
  });

  it.each([
    ["loses its process the device", "700", "CUDA context of this process is lost"],
    ["ends its process", "-1", "a launch ends the process"],
  ])("goes on with the other checks in another process when one %s", async (_, failure, words) => {
    const once = `import run, session
s = session.Session(8)
s.until = time.monotonic() + 60
whole, turns = s.run, []
def first_fails(command, env):
    turns.append(command)
    return whole(command, {**env, **({"RLSD_EMULATION_FAIL_LAUNCH": "2", "RLSD_EMULATION_FAILURE": "${failure}"} if len(turns) == 1 else {})})
s.run = first_fails`;
    const found = await ask(`run.check(s, "${library}", {}, ["repeats", "skipped_rows", "extreme_rows"])`, once);
    const failed = expect.stringContaining(words);
    expect(found).toEqual({ repeats: failed, skipped_rows: "passed", extreme_rows: "passed", failed });
  });

  it("goes on with the timings in another process, without what ended one", async () => {
    const progress = `import pathlib, progress
path = pathlib.Path("${folder}/timing.json")
def again(): return progress.Progress(path, 60, {"measured": True})
def lose(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
def crash(p, name, entrant=None):
    try: p.part(name, lambda: (entrant and p.enter(entrant, 60), lose()))
    except RuntimeError: pass
p = again()
p.part("first", lambda: p.found["shapes"].append(1))
p.part("odd", lambda: 1 / 0)
crash(p, "second", "a peer")
p = again()
retried = p.part("second", lambda: "done"), p.part("first", lambda: "done twice")
crash(p, "third")
p = again()`;
    const answer = await ask('[retried, p.part("third", lambda: 1), p.found]', progress);
    expect(answer).toEqual([
      ["done", null],
      null,
      {
        measured: true,
        shapes: [1],
        not_run: [
          "odd: ZeroDivisionError: division by zero",
          "third: CUDA error: an illegal memory access was encountered",
        ],
        parts: ["first", "odd", "second", "third"],
        left_out: { "a peer": "CUDA error: an illegal memory access was encountered" },
      },
    ]);
  });

  it("ends a process of timings whose contestant does not come back", async () => {
    const wait = `import pathlib, progress, subprocess
path = "${folder}/hung.json"
script = f"""import sys, time; sys.path[:0] = {sys.path!r}
import pathlib, progress
p = progress.Progress(pathlib.Path({path!r}), 60, {{}})
p.part("first", lambda: (p.enter("quick", 5), p.entered(), p.enter("slow", 0.2), time.sleep(20)))"""
status = subprocess.run([sys.executable, "-c", script]).returncode
p = progress.Progress(pathlib.Path(path), 60, {})`;
    expect(await ask('[status == progress.HUNG, p.found["left_out"], p.found["parts"]]', wait)).toEqual([
      true,
      { slow: "ended the process" },
      [],
    ]);
  });

  /** The harness without PyTorch and the peers' kernels. */
  const stubs = `from unittest.mock import MagicMock
names = ["torch", "flash_attn.ops.triton.cross_entropy", "trl_losses.logprob_entropy", "liger_kernel.ops.grpo_loss"]
sys.modules.update({name: MagicMock() for name in names})
sys.modules["torch"].cuda.is_available = lambda: False
import clock, contestants`;

  it("asks every contestant for the kernel that it ran", async () => {
    const batch = `${stubs}\nbatch = MagicMock(tokens=8, vocabulary=4, sequences=2)`;
    expect(await ask("[kind(batch).kernel() for kind in contestants.PEERS]", batch)).toEqual([{}, {}, {}, {}, {}]);
  });

  it("keeps the others' times when a peer fails after its first run, and loses all when ours does", async () => {
    const fails = `${stubs}
class Entrant(contestants.Contestant):
    def __init__(self, name, peer, lasts):
        self.name, self.peer, self.left = name, peer, lasts
    def run(self):
        self.left -= 1
        if self.left < 0: raise RuntimeError("out of memory")
absent = {}
def times(peer):
    try: return [(name, found["runs"]) for name, found in clock.in_turn(
        [Entrant("ours", False, 9), Entrant("it", peer, 3), Entrant("other", True, 9)], 3, absent=absent).items()]
    except RuntimeError as error: return str(error)`;
    expect(await ask("[times(True), absent, times(False)]", fails)).toEqual([
      [
        ["ours", 3],
        ["other", 3],
      ],
      { it: "RuntimeError: out of memory" },
      "out of memory",
    ]);
  });

  it("goes on where what says the peers' origin cannot be read", async () => {
    const broken = `import run, pathlib
pathlib.Path("${folder}/cut").mkdir()
pathlib.Path("${folder}/cut/ORIGIN.json").write_text('{"TRL": ')
os.environ["RLSD_PEERS"] = "${folder}/cut"`;
    expect(await ask("run.peers()", broken)).toMatch(/^a folder without an ORIGIN\.json that can be read: /);
  });

  it("judges the resident kernel on a device of compute capability 9.x alone", async () => {
    const report = (capability: string, gpu = "{}", more = "") => `run.passed_kernels({"backend": "cuda",
      "machine": {"gpu": ${gpu}}, "device": {"compute_cap": "${capability}"}, "sanitizer": {},
      "checks": {**{name: {"waves": "passed"} for name in (*run.VARIANTS, "public API")}, ${more}}})`;
    const asked = [
      report("9.0"),
      report("8.0"),
      report("10.0"),
      report("9.0", "None"),
      report("9.0", "{}", '"resident rows by name": {"failed": "x"}'),
      report("9.0", "{}", '"plain rows": {"failed": "x"}'),
    ];
    const both = ["policy-tokens", "rows-plain"];
    expect(await ask(`[${asked.join(", ")}]`, "import run")).toEqual([
      [...both, "rows-resident"],
      both,
      both,
      [],
      both,
      [],
    ]);
  });

  it("takes the newest compiler whose runtime the driver serves", async () => {
    const found = '{"a": (12, 4), "b": (13, 0), "c": (12, 8)}';
    const chosen = await ask(
      `[build.choose(${found}, version) for version in ([12, 4], [13, 0], [11, 8], None)] + [build.choose({}, None)]`,
      "import build",
    );
    expect(chosen).toEqual(["c", "b", "b", "b", null]);
  });

  it("does not call a target met that fewer blocks a row were timed for", async () => {
    const timing = (blocks: number) => `{"measured": True, "device": {"capability": [9, 0]}, "shapes": [
      {"tokens": 16384, "vocabulary": 151936, "logits": kind, "not_run": {}, "rows": [
        {"name": verdicts.OURS, "peer": False, "ms": 1.0, "of_floor": 0.95, "kernel": {"blocks": ${blocks}, "preferred blocks": 4}},
        {"name": verdicts.OFFICIAL, "peer": True, "ms": 4.0, "difference": 0.001}]} for kind in verdicts.LOGITS]}`;
    const verdict = (blocks: number) =>
      ask(`list(verdicts.lines(verdicts.verdicts(${timing(blocks)})))[0]`, "import verdicts");
    expect(await verdict(4)).toMatch(/0\.950 \(peaked logits\): met$/);
    expect(await verdict(2)).toMatch(/not measured \(the device had no room for 4 blocks a row: 2 were timed\)$/);
  });
});
