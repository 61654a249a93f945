import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { compiler, emulatedCudaLibrary, emulationCompiler, testProgram } from "./support/cpu-library.js";

const root = join(__dirname, "..");
const run = promisify(execFile);
const cxx = compiler();
const hasNumpy = ((): boolean => {
  try {
    execFileSync("python3", ["-c", "import numpy"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

const emulator = emulationCompiler();
const possible = emulator !== undefined && hasNumpy;
if (!possible)
  process.stdout.write(
    "not run: CUDA kernels over the C boundary (no C++ compiler, one without makecontext, or no NumPy)\n",
  );

/** The devices that kernels meet, as the emulation makes them. */
const DEVICES: readonly (readonly [string, Record<string, string>])[] = [
  ["8.0, without clusters", { RLSD_EMULATION_COMPUTE: "8" }],
  ["12.0, with less than half the shared memory", { RLSD_EMULATION_COMPUTE: "12" }],
  ["10.0, from PTX without clusters", { RLSD_EMULATION_COMPUTE: "10", RLSD_EMULATION_PTX: "80" }],
  ["9.0, nothing asked for ahead", { RLSD_CUDA_PREFETCH_KIB: "0" }],
  ["9.0, whole rows asked for ahead", { RLSD_CUDA_PREFETCH_KIB: "1024" }],
];

/** Devices with less room than a whole one, by MIG, MPS or what else runs: the kernel before and after the first call. */
const ROOMS: readonly (readonly [string, string, string, string, readonly string[]])[] = [
  ["half a cluster", "RLSD_EMULATION_MOST_CLUSTER=2", "resident by 2", "resident by 2", ["launch of 2", "launch of 2"]],
  ["one block", "RLSD_EMULATION_MOST_CLUSTER=1", "plain", "plain", []],
  ["no block", "RLSD_EMULATION_MOST_CLUSTER=0", "plain", "plain", []],
  ["no clusters at all", "RLSD_EMULATION_OCCUPANCY_ERROR=912", "plain", "plain", []],
  ["no answer", "RLSD_EMULATION_OCCUPANCY_ERROR=999", "resident by 4", "resident by 4", ["launch of 4", "launch of 4"]],
  [
    "a refused launch",
    "RLSD_EMULATION_REFUSE_CLUSTER=4",
    "resident by 4",
    "resident by 2",
    ["launch of 4", "launch of 2", "launch of 2"],
  ],
  [
    "every launch of clusters refused",
    "RLSD_EMULATION_REFUSE_CLUSTER=2 RLSD_EMULATION_REFUSAL=912",
    "resident by 4",
    "plain",
    ["launch of 4", "launch of 2"],
  ],
];

interface RowsFound {
  readonly kernel: string;
  readonly blocks: number;
}

const rowsWord = ({ kernel, blocks }: RowsFound): string =>
  kernel === "rows-plain" ? "plain" : `${kernel.replace("rows-", "")} by ${blocks}`;

(possible ? describe : describe.skip)("the CUDA kernels over the C boundary, by emulation", () => {
  let library = "";
  beforeAll(async () => {
    library = await emulatedCudaLibrary(emulator!);
  }, 600_000);

  /** What the named checks of bench/gpu/checks.py print, the last line of each that failed. */
  async function check(names: readonly string[], env: Record<string, string>): Promise<string> {
    const args = [join(root, "bench/gpu/checks.py"), library, ...names];
    const all = { ...process.env, RLSD_CUDA_EXPERIMENTAL: "1", ...env };
    return await run("python3", args, { env: all }).then(
      ({ stdout }) => stdout.trim(),
      (error: { stdout: string; stderr: string }) => `${error.stdout}${error.stderr}`.trim().split("\n").at(-1) ?? "",
    );
  }

  /** What the library says of rows of 151936 bf16 columns before and after a call on each device, and what these enqueued. */
  async function keepRows(
    env: Record<string, string>,
    devices = [0, 0],
  ): Promise<{ rows: RowsFound[]; trace: string[] }> {
    const trace = join(mkdtempSync(join(tmpdir(), "rlsd-trace-")), "trace");
    const script = `import json, sys; sys.path.insert(0, "bench/gpu"); import abi, batches, checks
rows = []
try:
  for device in ${JSON.stringify(devices)}:
    batch = checks.random_batch(1, 2, 151936, "bf16")
    batches.policy_loss(abi.Library(sys.argv[1], device), abi.objective(), rows=rows, **batch)
except abi.RlsdError as error: rows.append(str(error))
print(json.dumps(rows))`;
    const all = { ...process.env, RLSD_CUDA_EXPERIMENTAL: "1", RLSD_EMULATION_TRACE: trace, ...env };
    const { stdout } = await run("python3", ["-c", script, library], { cwd: root, env: all });
    return { rows: JSON.parse(stdout) as RowsFound[], trace: readFileSync(trace, "utf8").trim().split("\n") };
  }

  const passed = (names: readonly string[]): string => names.map((name) => `${name}: passed`).join("\n");

  // All checks, of both kernels of rows, in the order of threads: test/gpu-check.test.ts, which runs what a GPU is given.
  it("computes what the CPU does where threads are visited backwards", async () => {
    const edges = ["equal_teacher", "extreme_rows", "bad_rows", "refusals", "skipped_rows"];
    const shapes = [
      "alignments",
      "in_place",
      "rows_argument",
      "wide_rows",
      "targets",
      "too_wide_rows",
      "mixed_dtypes",
      "log_probs_level",
      "token_log_probs",
    ];
    const names = ["objectives", "repeats", ...edges, ...shapes, "stale_workspace", "token_shares"];
    const trace = join(mkdtempSync(join(tmpdir(), "rlsd-trace-")), "trace");
    const env = { RLSD_EMULATION_ORDER: "reverse", RLSD_EMULATION_TRACE: trace };
    expect(await check(names, env)).toBe(passed(names));
  }, 300_000);

  it.each(DEVICES)(
    "computes what the CPU does on a device of compute capability %s",
    async (_, env) => {
      const names = ["objectives", "alignments", "extreme_rows", "rows_argument", "wide_rows", "targets"];
      expect(await check(names, env)).toBe(passed(names));
    },
    300_000,
  );

  // Only here blocks and warps end, or write anew, before others have read what was there.
  it.each([
    ["blocks", ["wide_rows", "waves", "equal_teacher", "in_place"]],
    ["warps", ["objectives", "waves", "token_shares", "log_probs_level", "refusals", "rows_argument"]],
  ])(
    "computes what the CPU does where %s are as far as they may be in front of the others",
    async (order, names) => {
      expect(await check(names, { RLSD_EMULATION_ORDER: order })).toBe(passed(names));
    },
    300_000,
  );

  it("says when rows cannot be kept though they are asked for by name", async () => {
    const kept = { RLSD_CUDA_ROWS: "resident" };
    expect(await check(["wide_rows"], kept)).toBe("wide_rows: passed");
    const refusal = /RLSD_CUDA_ROWS=resident: .* compute capability 9\.0 or newer/;
    expect(await check(["wide_rows"], { ...kept, RLSD_EMULATION_COMPUTE: "8" })).toMatch(refusal);
    expect(await check(["wide_rows"], { ...kept, RLSD_EMULATION_PTX: "80" })).toMatch(refusal);
  }, 300_000);

  it.each(ROOMS)(
    "takes what a device has room for, from the call on that found it out: %s",
    async (_, env, before, after, launches) => {
      const variables = Object.fromEntries(env.split(" ").map((one) => one.split("=")));
      const answer = await keepRows(variables);
      expect(answer.rows.map(rowsWord)).toEqual([before, after, after, after]);
      expect(answer.trace.filter((line) => line.startsWith("launch of "))).toEqual(launches);
      const names = ["wide_rows", "equal_teacher", "in_place"];
      expect(await check(names, variables)).toBe(passed(names));
    },
    300_000,
  );

  it.each(["resident", "plain"])("finds rows that lie beyond 2^31 elements: %s rows", async (kernel) => {
    const script = `import mmap, sys; sys.path.insert(0, "bench/gpu"); import abi, batches, numpy as np
library, V, stride = abi.Library(sys.argv[1]), 151936, 2**31 + 128
pages = mmap.mmap(-1, 2 * (2 * stride + V), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000) # MAP_NORESERVE
far = np.frombuffer(pages, np.uint16)
rows = [far[r * stride : r * stride + V] for r in range(3)]
near = batches.Logits(2 * np.random.default_rng(0).standard_normal((3, V)), "bf16", rows_of=np.array([2, 0, 1], np.int32))
for row, bits in zip(rows, near.bits): row[:] = bits
batch = dict(student=near, token_ids=np.array([5, 151935, 77777], np.int32), cu_seqlens=[0, 3], advantages=[1.0])
wanted = batches.policy_loss(library, abi.objective(), in_place=True, **batch)
scores, read, of = batches.scores, batches.Memory.read, abi.Tensor.of
there = of(far.ctypes.data, "bf16", 3, V, stride)
def far_scores(memory, view):
  found = scores(memory, view)
  if view is near: found.logits = there
  return found
batches.scores = far_scores
abi.Tensor.of = lambda data, *layout: there if data == there.data else of(data, *layout)
batches.Memory.read = lambda self, data, like: np.stack(rows) if data == there.data else read(self, data, like)
got = batches.policy_loss(library, abi.objective(), in_place=True, **batch)
print(np.array_equal(got["log_probs"], wanted["log_probs"]), np.array_equal(np.stack(rows), wanted["gradient_bits"]))`;
    const env = { ...process.env, RLSD_CUDA_EXPERIMENTAL: "1", RLSD_CUDA_ROWS: kernel };
    const { stdout } = await run("python3", ["-c", script, library], { cwd: root, env });
    expect(stdout.trim()).toBe("True True");
  });

  it("asks a device once for each shape of rows", async () => {
    const { rows, trace } = await keepRows({});
    expect(rows[0]).toEqual({ kernel: "rows-resident", blocks: 4, "preferred blocks": 4, "at once": 1 });
    expect(trace.filter((line) => line === "occupancy")).toHaveLength(1);
  });

  it.each(["ppo-clip", "gspo"])("makes nothing but what a graph can hold, of an objective as %s", async (surrogate) => {
    const script = `import os, sys; sys.path.insert(0, "bench/gpu"); import abi, batches, checks, numpy as np
library, objective = abi.Library(sys.argv[1]), abi.objective(surrogate="${surrogate}")
batch = checks.random_batch(1, 3, 4096, "bf16")
def captured(*arguments):
  size = abi.c.c_uint64()
  refs = [abi.c.byref(each) for each in arguments]
  library.call("policy_loss_workspace", *refs, abi.c.byref(size))
  library.reserve(size.value)
  with batches.Memory(library) as m:
    outcome = np.full(48, 0xEE, np.uint8)
    arguments[2].outcome = place = m.write(outcome)
    os.environ["RLSD_EMULATION_CAPTURE"] = "1"
    library.call("policy_loss", *refs)
    del os.environ["RLSD_EMULATION_CAPTURE"]
    print(not np.any(m.read(place, outcome)[:8]), flush=True)
usual, library.policy_loss = library.policy_loss, captured
got = batches.policy_loss(library, objective, **batch) # the first call: the device is asked for its room
library.policy_loss = usual
print(np.array_equal(got["gradient_bits"], batches.policy_loss(library, objective, **batch)["gradient_bits"]), flush=True)
os.environ["RLSD_EMULATION_CAPTURE"] = "1"
batches.policy_loss(library, objective, **batch) # allocates, which ends the process: the capture is heeded
print("went on")`;
    const env = { ...process.env, RLSD_CUDA_EXPERIMENTAL: "1" };
    const ended = await run("python3", ["-c", script, library], { cwd: root, env }).catch((error) => error);
    expect(ended).toMatchObject({ stdout: "True\nTrue\n", stderr: expect.stringContaining("cudaMalloc is called") });
  });

  it("asks each device for itself", async () => {
    const env = { RLSD_EMULATION_DEVICES: "2", RLSD_EMULATION_COMPUTE: "9,12" }; // the second has less shared memory
    expect((await keepRows(env, [0, 1])).rows.map(rowsWord)).toEqual(
      [4, 4, 8, 8].map((blocks) => `resident by ${blocks}`),
    );
  });

  it("finds out that rows asked for by name have no room before anything is enqueued", async () => {
    const { rows, trace } = await keepRows({ RLSD_CUDA_ROWS: "resident", RLSD_EMULATION_MOST_CLUSTER: "1" });
    expect(rows).toEqual([
      expect.stringMatching(/^RLSD_CUDA_ROWS=resident: cuda:0.* has no room .* 4 or fewer for a row/),
    ]);
    expect(trace).toEqual(["occupancy", "occupancy"]);
  });

  it("refuses kernels that have not passed on a GPU unless told otherwise", async () => {
    const script = `import sys; sys.path.insert(0, "bench/gpu"); import abi, batches
try: batches.policy_loss(abi.Library(sys.argv[1]), abi.objective(), student=[-1.0], cu_seqlens=[0, 1], advantages=[1.0])
except abi.RlsdError as error: print(error.code, error)`;
    const { stdout } = await run("python3", ["-c", script, library], { cwd: root });
    expect(stdout).toMatch(/^UNSUPPORTED .*policy-tokens has not passed/);
  });
});

(cxx === undefined ? describe.skip : describe)("the tiling of rows", () => {
  it("gives each column to one block and fits in shared memory, for every width and dtype", async () => {
    const { stdout } = await run(await testProgram(cxx!, "test_cuda_tiling.cc"), []);
    expect(stdout.trim()).toBe("passed");
  });
});
