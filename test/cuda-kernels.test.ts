import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
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

/** Kernels and orders of threads. */
const KERNELS: readonly (readonly [string, Record<string, string>])[] = [
  ["resident rows", {}],
  ["resident rows, threads visited backwards", { RLSD_EMULATION_ORDER: "reverse" }],
  ["plain rows", { RLSD_CUDA_ROWS: "plain" }],
];

/** The devices that kernels meet, as the emulation makes them. */
const DEVICES: readonly (readonly [string, Record<string, string>])[] = [
  ["8.0, without clusters", { RLSD_EMULATION_COMPUTE: "8" }],
  ["12.0, with less than half the shared memory", { RLSD_EMULATION_COMPUTE: "12" }],
  ["10.0, from PTX without clusters", { RLSD_EMULATION_COMPUTE: "10", RLSD_EMULATION_PTX: "80" }],
  ["9.0, nothing asked for ahead", { RLSD_CUDA_PREFETCH_KIB: "0" }],
  ["9.0, whole rows asked for ahead", { RLSD_CUDA_PREFETCH_KIB: "1024" }],
];

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

  const passed = (names: readonly string[]): string => names.map((name) => `${name}: passed`).join("\n");

  it.each(KERNELS)(
    "computes what the CPU does: %s",
    async (_, env) => {
      const edges = ["equal_teacher", "extreme_rows", "bad_rows", "refusals", "skipped_rows"];
      const shapes = ["alignments", "in_place", "rows_argument", "wide_rows", "log_probs_level", "token_log_probs"];
      const names = ["objectives", "repeats", ...edges, ...shapes];
      if (Object.keys(env).length === 0) names.push("vectors");
      names.push("stale_workspace");
      const trace = join(mkdtempSync(join(tmpdir(), "rlsd-trace-")), "trace");
      expect(await check(names, { ...env, RLSD_EMULATION_TRACE: trace })).toBe(passed(names));
    },
    300_000,
  );

  it.each(DEVICES)(
    "computes what the CPU does on a device of compute capability %s",
    async (_, env) => {
      const names = ["objectives", "alignments", "extreme_rows", "rows_argument", "wide_rows"];
      expect(await check(names, env)).toBe(passed(names));
    },
    300_000,
  );

  it("adds up shares of the tokens that cut sequences anywhere", async () => {
    expect(await check(["token_shares"], {})).toBe("token_shares: passed");
    expect(await check(["token_shares"], { RLSD_EMULATION_ORDER: "reverse" })).toBe("token_shares: passed");
  }, 300_000);

  it("says when rows cannot be kept though they are asked for by name", async () => {
    const kept = { RLSD_CUDA_ROWS: "resident" };
    expect(await check(["wide_rows"], kept)).toBe("wide_rows: passed");
    const refusal = /RLSD_CUDA_ROWS=resident: .* compute capability 9\.0 or newer/;
    expect(await check(["wide_rows"], { ...kept, RLSD_EMULATION_COMPUTE: "8" })).toMatch(refusal);
    expect(await check(["wide_rows"], { ...kept, RLSD_EMULATION_PTX: "80" })).toMatch(refusal);
  }, 300_000);

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
