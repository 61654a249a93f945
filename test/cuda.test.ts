import { execFile, execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  backendInfo,
  createStream,
  empty,
  policyLossSync,
  rlsd,
  type Tensor,
  tensor,
  toDevice,
  toHost,
} from "../lib/index.js";
import { fromHandle, fromPointer, pointerOf, streamFromPointer } from "../lib/interop.js";
import { child } from "./support/child.js";
import { compiler, emulatedCudaLibrary, emulationCompiler, testProgram } from "./support/cpu-library.js";

const root = join(__dirname, "..");
const run = promisify(execFile);
const cxx = compiler();
const emulator = emulationCompiler();
const emulated = emulator === undefined ? describe.skip : describe;
if (emulator === undefined)
  process.stdout.write("not run: an emulated device (no C++ compiler, or one without makecontext)\n");

emulated("an emulated device", () => {
  let library = "";
  beforeAll(async () => {
    library = await emulatedCudaLibrary(emulator!);
    process.env.RLSD_CUDA_LIBRARY = library;
  }, 600_000);

  it("describes its device, what it serves, and which kernels have passed on a GPU", () => {
    const { cuda } = backendInfo();
    expect(cuda).toMatchObject({ available: true, operations: { policy_loss: true, matmul: false } });
    expect(cuda.devices).toMatchObject([{ name: "emulated", compute: "9.0" }]);
    expect(Object.keys(cuda.kernels ?? {})).toEqual(["policy-tokens", "rows-plain", "rows-resident"]);
  });

  it.each([
    ["f32", Float32Array.of(1, -2, 3, 4, 5, 6)],
    ["bf16", Uint16Array.of(1, 2, 3, 4, 5, 65535)],
    ["f16", Uint16Array.of(6, 5, 4, 3, 2, 1)],
  ] as const)("carries %s to the device and back", (dtype, data) => {
    using there = toDevice(tensor(data, [2, 3], dtype), "cuda:0");
    expect([there.device, there.shape, there.dtype]).toEqual(["cuda:0", [2, 3], dtype]);
    expect(toHost(there).data).toEqual(data);
    using again = toDevice(there, "cuda");
    expect(toHost(again).data).toEqual(data);
  });

  it("starts a new device tensor at zero, and takes an empty one", () => {
    expect(toHost(empty([3], "f32", "cuda:0")).data).toEqual(new Float32Array(3));
    expect(toHost(empty([0, 5], "bf16", "cuda:0")).data).toEqual(new Uint16Array(0));
  });

  it("does not give device memory to JavaScript, nor to a call whose student is on the CPU", () => {
    const t = empty([1], "f32", "cuda:0");
    expect(() => t.data).toThrow(expect.objectContaining({ code: "ERR_RLSD_DEVICE_TENSOR" }));
    const student = { logProbs: Float32Array.of(-1) };
    const batch = { student, cuSeqlens: Int32Array.of(0, 1), advantages: Float32Array.of(1) };
    for (const input of [{ teacher: { logProbs: t } }, { oldLogProbs: t }, { advantages: t }]) {
      expect(() => policyLossSync({ ...batch, ...input }, rlsd())).toThrow(
        expect.objectContaining({ code: "ERR_RLSD_DEVICE_TENSOR" }),
      );
    }
  });

  it("refuses a disposed tensor and a device that is not there", () => {
    const t = empty([2], "f32", "cuda:0");
    t[Symbol.dispose]();
    t[Symbol.dispose]();
    expect(() => toHost(t)).toThrow(expect.objectContaining({ code: "ERR_RLSD_DISPOSED" }));
    for (const device of ["cuda:1", "rocm:0", "cuda:x"]) {
      expect(() => empty([1], "f32", device)).toThrow(
        expect.objectContaining({ code: "ERR_RLSD_BACKEND_UNAVAILABLE" }),
      );
    }
  });

  it("says when there is no room, and stays usable", () => {
    const full = () => empty([2 ** 29], "f32", "cuda:0");
    expect(full).toThrow(expect.objectContaining({ code: "ERR_RLSD_OUT_OF_MEMORY" }));
    expect(full).toThrow(/2147483648 bytes on cuda:0: \d+ of 1073741824 are free/);
    expect(toHost(empty([2], "f32", "cuda:0")).data).toEqual(new Float32Array(2));
  });

  it("says that a poisoned context is lost, then and at every later call, while disposal goes on", async () => {
    const answers = (await child("poison-child.ts", {
      RLSD_CUDA_LIBRARY: library,
      RLSD_CUDA_EXPERIMENTAL: "1",
    })) as string[];
    expect(answers[0]).toBe("done");
    for (const answer of answers.slice(1, 5)) expect(answer).toMatch(/^ERR_RLSD_(DEVICE|OUT_OF_MEMORY): /);
    expect(answers[1]).toMatch(/cudaErrorIllegalAddress \(700.*start a new process/);
    expect(answers.slice(5)).toEqual(["done", "done"]);
  });

  it("orders streams explicitly", async () => {
    using a = createStream("cuda:0");
    using b = createStream("cuda:0");
    using t = toDevice(tensor(Float32Array.of(7), [1]), "cuda:0", a);
    b.waitFor(a);
    expect(toHost(t, b).data).toEqual(Float32Array.of(7));
    await b.synchronize();
    expect(() => toHost(tensor(Float32Array.of(1), [1]), a)).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
    );
    const other = { device: "cuda:0" } as never;
    expect(() => toHost(t, other)).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
  });

  it("wraps memory and streams of another library, and frees neither", () => {
    using owner = toDevice(tensor(Float32Array.of(1, 2, 3, 4), [4]), "cuda:0");
    const layout = { shape: [2], dtype: "f32", device: "cuda:0" } as const;
    const half: Tensor = fromPointer(pointerOf(owner) + 8n, layout);
    expect(toHost(half).data).toEqual(Float32Array.of(3, 4));
    half[Symbol.dispose]();
    expect(toHost(owner).data).toEqual(Float32Array.of(1, 2, 3, 4));
    // The default stream, and CUDA's names for the legacy and the per-thread one.
    for (const name of [0n, 1n, 2n]) {
      using stream = streamFromPointer(name, "cuda:0");
      expect(toHost(owner, stream).data).toEqual(Float32Array.of(1, 2, 3, 4));
    }
    expect(() => pointerOf(tensor(new Float32Array(1), [1]))).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
    );
  });

  it("hands memory to another process, which sees the bytes that were meant", async () => {
    const env = { RLSD_CUDA_LIBRARY: library, RLSD_CUDA_EXPERIMENTAL: "1", RLSD_EMULATION_SHARED: "1" };
    const answer = (await child("ipc-child.ts", env)) as { seen: unknown[]; gradient: number[] };
    expect(answer.seen.slice(0, 2)).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ]);
    expect(answer.seen[2]).toEqual(answer.gradient);
    expect(answer.seen[3]).toEqual([true, true]);
    expect(answer).toMatchObject({
      own: expect.stringMatching(/^ERR_RLSD_DEVICE .*another process/),
      unknown: expect.stringMatching(/^ERR_RLSD_INVALID_ARGUMENT .*no allocation at 0x1000/),
      whole: [1, 2, 3, 4, 5, 6, 7, 8],
    });
    const layout = { shape: [2], dtype: "f32", device: "cuda:0" } as const;
    expect(() => fromHandle(new Uint8Array(71), layout)).toThrow(/Uint8Array\(72\)/);
  });
});

emulated("memory that calls borrow", () => {
  it("is lent again, and what no call wants any more makes room", async () => {
    const program = await testProgram(cxx!, "test_device_blocks.cc", ["csrc/napi/device_blocks.cc"]);
    const { stdout } = await run(program, []);
    expect(stdout.trim()).toBe("passed");
  });
});

describe("what a GPU machine gets and gives back", () => {
  const require = createRequire(join(root, "test/cuda.test.ts"));
  const { makeBundle } = require("../scripts/gpu-bundle.cjs") as {
    makeBundle(output: string, peers?: string): { output: string; megabytes: number };
  };
  const { passedKernels, render, sources } = require("../scripts/passed-kernels.cjs") as {
    passedKernels(folder?: string, current?: string): string[];
    sources(): string;
    render(passed: string[]): Record<string, string>;
  };
  const folder = mkdtempSync(join(tmpdir(), "rlsd-gpu-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("packs sources, harness and published cases, in less than 40 MB", () => {
    const { output, megabytes } = makeBundle(join(folder, "bundle.tar.gz"));
    expect(megabytes).toBeLessThan(40);
    const names = execFileSync("tar", ["tzf", output], { encoding: "utf8" }).split("\n");
    const needed = ["CMakeLists.txt", "csrc/sources.json", "csrc/cuda/rows_resident.cu", "csrc/include/rlsd/rlsd.h"];
    needed.push("bench/gpu/run.py", "test/fixtures/vectors/case-11-000.json");
    for (const name of needed) expect(names).toContain(`rlsd-gpu/${name}`);
  });

  it("packs the peers of a folder, which peers.py takes from sources with their origin, and says when it is not there", () => {
    const source = join(folder, "source");
    const kernel = "flash_attn/ops/triton/cross_entropy.py";
    mkdirSync(join(source, "flash_attn/ops/triton"), { recursive: true });
    writeFileSync(join(source, kernel), "KERNEL = 1\n");
    writeFileSync(join(source, "flash_attn/__init__.py"), '__version__ = "1.2.3"\nimport compiled_extension\n');
    const peers = join(folder, "peers");
    const made = spawnSync("python3", [join(root, "bench/gpu/peers.py"), peers, `${source}@0123abc`], {
      encoding: "utf8",
    });
    expect(made.stdout).toMatch(/TRL: in none of the sources/);
    const origin = JSON.parse(readFileSync(join(peers, "ORIGIN.json"), "utf8")) as Record<string, unknown>;
    expect(origin).toMatchObject({ "flash-attention": { version: "1.2.3", commit: "0123abc", file: kernel } });
    const { output } = makeBundle(join(folder, "with-peers.tar.gz"), peers);
    const read = (name: string) =>
      execFileSync("tar", ["xzOf", output, `rlsd-gpu/peers/${name}`], { encoding: "utf8" });
    expect(read(kernel)).toBe("KERNEL = 1\n");
    expect(read("flash_attn/__init__.py")).toBe("");
    expect(() => makeBundle(join(folder, "none.tar.gz"), join(folder, "nowhere"))).toThrow(
      /There is no folder .*nowhere/,
    );
  });

  it("takes TRL's kernel from an installed TRL, whose release names the version", () => {
    const installed = join(folder, "site-packages");
    mkdirSync(join(installed, "trl/kernels"), { recursive: true });
    mkdirSync(join(installed, "trl-9.8.7.dist-info/licenses"), { recursive: true });
    writeFileSync(join(installed, "trl/kernels/logprob_entropy.py"), "KERNEL = 2\n");
    writeFileSync(join(installed, "trl-9.8.7.dist-info/METADATA"), "Name: trl\nVersion: 9.8.7\n");
    writeFileSync(join(installed, "trl-9.8.7.dist-info/licenses/LICENSE"), "Apache\n");
    const peers = join(folder, "installed-peers");
    spawnSync("python3", [join(root, "bench/gpu/peers.py"), peers, installed]);
    expect(readFileSync(join(peers, "trl_losses/logprob_entropy.py"), "utf8")).toBe("KERNEL = 2\n");
    const origin = JSON.parse(readFileSync(join(peers, "ORIGIN.json"), "utf8")) as Record<string, unknown>;
    expect(origin).toMatchObject({
      TRL: { version: "9.8.7", file: "trl/kernels/logprob_entropy.py", licence_text: true },
    });
  });

  it("lets a kernel be the default once the newest result of a GPU that can judge it says that it passed, not before", () => {
    const results = join(folder, "results");
    mkdirSync(results);
    const passed = (current = "these") => passedKernels(results, current);
    expect(passed()).toEqual([]);
    const every = ["policy-tokens", "rows-plain", "rows-resident"];
    const write = (date: string, kernels: string[], more: object = {}) => {
      const report = { date, passed: kernels, judged: every, sources: "these", backend: "cuda", machine: { gpu: {} } };
      writeFileSync(join(results, `${date}.json`), JSON.stringify({ ...report, ...more }));
    };
    write("2026-12-01", every, { machine: { gpu: null }, judged: [] });
    expect(passed()).toEqual([]);
    write("2026-11-01", every);
    expect(passed()).toEqual(every);
    expect(passed("others")).toEqual([]); // what passed is not what is compiled now
    write("2026-11-02", every.slice(0, 2), { judged: every.slice(0, 2) }); // a device without clusters
    expect(passed()).toEqual(every);
    write("2026-11-03", every.slice(0, 1));
    expect(passed()).toEqual(every.slice(0, 1));
    write("2026-11-04", every, { sources: null }); // of a library from elsewhere
    expect(passed()).toEqual([]);
  });

  it("knows the sources of a result by the same hash on both sides", () => {
    const script = "import build; print(build.sources())";
    const { stdout } = spawnSync("python3", ["-c", script], { cwd: join(root, "bench/gpu"), encoding: "utf8" });
    expect(stdout.trim()).toBe(sources());
  });

  it("keeps dispatch and doctor at what bench/results says", () => {
    for (const [path, text] of Object.entries(render(passedKernels()))) {
      expect(readFileSync(join(root, path), "utf8")).toBe(text);
    }
  });
});
