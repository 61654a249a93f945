import { spawn, spawnSync } from "node:child_process";
import type { Figure } from "../lib/cli/bench/figure.js";
import type { Report } from "../lib/cli/bench/run.js";
import { cliArgs } from "./support/cli.js";
import { emulatedCudaLibrary, emulationCompiler } from "./support/cpu-library.js";

const argsOf = (args: string[]) => cliArgs(["bench", ...args]);

function bench(args: string[], env: NodeJS.ProcessEnv = {}) {
  const options = { encoding: "utf8", env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, argsOf(args), options);
  return { status, stdout, stderr };
}

const [N, V, H] = [6, 500, 16];
const small = ["--quick", "--tokens", String(N), "--vocab", String(V)];
const SIZE = { f32: 4, bf16: 2, f16: 2 } as const;

/** Every figure's rates are what its own bytes, operations and times say. */
function checkFigure(one: Figure): void {
  const { lowerQuartile, median, upperQuartile } = one.timeMilliseconds;
  expect(0 < lowerQuartile && lowerQuartile <= median && median <= upperQuartile).toBe(true);
  expect(Number.isFinite(upperQuartile)).toBe(true);
  expect(one.rounds).toBeGreaterThanOrEqual(3);
  expect(one.callsPerRound).toBeGreaterThanOrEqual(1);
  expect(one.nanosecondsPerToken).toBeCloseTo((median * 1e6) / one.tokens, 3);
  if (one.operations !== undefined) {
    expect(one.gigaflopsPerSecond! / (one.operations / (median / 1e3) / 1e9)).toBeCloseTo(1, 9);
  }
  if (one.bytesMoved !== undefined) {
    expect(one.gigabytesPerSecond! / (one.bytesMoved / (median / 1e3) / 1e9)).toBeCloseTo(1, 9);
  }
  if (one.copy === undefined) return;
  const copyRate = one.copy.bytesMoved / (one.copy.timeMilliseconds.median / 1e3) / 1e9;
  expect(one.copy.gigabytesPerSecond / copyRate).toBeCloseTo(1, 9);
  expect(one.percentOfCopy! / ((100 * one.gigabytesPerSecond!) / copyRate)).toBeCloseTo(1, 9);
}

describe("rlsd bench --json", () => {
  const { status, stdout, stderr } = bench([...small, "--hidden", String(H), "--json"]);
  const report = JSON.parse(stdout) as Report;

  test("is one document that says on what and how it was measured", () => {
    expect({ status, stderr, lines: stdout.trim().split("\n").length }).toEqual({ status: 0, stderr: "", lines: 1 });
    const { machine, method } = report;
    expect(machine).toMatchObject({ node: process.versions.node, platform: `${process.platform}-${process.arch}` });
    expect(machine.package).toMatch(/^\d+\.\d+\.\d+/);
    expect(machine.cpu).toMatch(/\w/);
    for (const count of [machine.cores, machine.poolThreads, machine.cacheBytes]) expect(count).toBeGreaterThan(0);
    expect(machine.availableBytes).toBeLessThanOrEqual(machine.memoryBytes);
    expect(method).toMatchObject({ quick: true, threads: machine.poolThreads });
    expect(report.seconds).toBeGreaterThan(0);
  });

  test("has every figure, each true to its own bytes and times", () => {
    const names = report.figures.map(({ level, call, variant, dtype }) => [level, call, variant, dtype].join("|"));
    const logits = (dtype: string) => [
      `logits|policyLossSync|teacher logits, in place|${dtype}`,
      `logits|tokenLogProbsSync|scores alone|${dtype}`,
      `logits|tokenLogProbsSync|rows in cache|${dtype}`,
    ];
    expect(names).toEqual([
      "logprob|policyLossSync|into out|",
      "logprob|policyLossSync|into out|",
      "logprob|policyLossSync|results allocated|",
      "logprob|policyLoss|queued, awaited|",
      ...["f32", "bf16", "f16"].flatMap(logits),
      "head|policyLoss|forward, backward, teacher|f32",
      "head|tokenLogProbs|forward|f32",
    ]);
    report.figures.forEach(checkFigure);
  });

  test("counts what must move and what must be multiplied", () => {
    const logits = report.figures.filter(({ level }) => level === "logits");
    for (const { call, variant, dtype, tokens, bytesMoved, copy } of logits) {
      const tensor = tokens * V * SIZE[dtype!];
      expect(bytesMoved).toBe((call === "policyLossSync" ? 3 : 1) * tensor);
      expect([variant, copy === undefined]).toEqual([variant, variant === "rows in cache"]);
      if (copy === undefined) continue;
      expect(tokens).toBe(N);
      // A share is rounded up to elements of 4 bytes in each thread.
      expect(copy.bytesMoved - 2 * tensor).toBeGreaterThanOrEqual(0);
      expect(copy.bytesMoved - 2 * tensor).toBeLessThan(8 * report.machine.poolThreads);
    }
    const head = report.figures.filter(({ level }) => level === "head");
    expect(head.map(({ operations }) => operations)).toEqual([8 * N * V * H, 2 * N * V * H]);
  });

  test("says that logits this small lie in the cache", () => {
    expect(report.notes.join()).toMatch(/A logits tensor is as small as .*% of the last-level cache/);
  });
});

describe("rlsd bench", () => {
  test("measures the levels, dtypes and threads that are asked for, and nothing else", () => {
    const args = ["--level", "head", "--level", "logits", "--dtype", "bf16", "--threads", "1", "--hidden", "8"];
    const { status, stdout } = bench([...small, ...args, "--json"]);
    expect(status).toBe(0);
    const { figures, method } = JSON.parse(stdout) as Report;
    expect(figures.map(({ level }) => level)).toEqual(["logits", "logits", "logits", "head", "head"]);
    expect(new Set(figures.map(({ dtype, threads, tokens, vocab }) => [dtype, threads, tokens, vocab].join()))).toEqual(
      new Set([`bf16,1,${N},${V}`]),
    );
    expect(figures[0]?.copy?.bytesMoved).toBe(2 * 2 * N * V);
    expect(figures[3]?.hidden).toBe(8);
    expect(method.threads).toBe(1);
  });

  test("prints the machine, a table a level and what its columns mean, in plain lines", () => {
    const { status, stdout, stderr } = bench([...small, "--hidden", String(H)]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^rlsd \d+\.\d+\.\d+, Node \d+/);
    expect(stdout).toContain(`Logits: N = ${N}, V = ${V}, `);
    expect(stdout).toContain(`LM head: N = ${N}, V = ${V}, H = ${H}, `);
    expect(stdout).toMatch(
      /^policyLossSync +teacher logits, in place +bf16 +\S+ +\S+ to \S+ +\S+ +\S+ +\d+ +\[#*\.*\] +\d+$/m,
    );
    expect(stdout).toContain("GB/s: bytes that must move");
    expect(stdout).toMatch(/\n\d+\.\d s\n$/);
    expect(["\r", "\u001b", "NaN", "undefined"].filter((text) => stdout.includes(text))).toEqual([]);
  });

  test.each([
    [["--level", "logit"], 2, "ERR_RLSD_USAGE", /no level "logit"\. Did you mean "logits"/],
    [["--dtype", "fp16"], 2, "ERR_RLSD_USAGE", /no dtype "fp16"\. Did you mean "f16"/],
    [["--device", "cuda0"], 2, "ERR_RLSD_USAGE", /no device "cuda0"\. Did you mean "cuda:0"/],
    [["--tokens", "0"], 2, "ERR_RLSD_USAGE", /whole number from 1 .* for --tokens but received "0"/],
    [["--vocab", "1e3"], 2, "ERR_RLSD_USAGE", /for --vocab but received "1e3"/],
    [["--threads", "100000"], 2, "ERR_RLSD_USAGE", /for --threads but received "100000".*RLSD_NUM_THREADS/],
    [["--level", "logprob", "--vocab", "9"], 2, "ERR_RLSD_USAGE", /--vocab says nothing at the level logprob/],
    [["--device", "cuda:0", "--threads", "1"], 2, "ERR_RLSD_USAGE", /--threads is the CPU's/],
    [["--device", "cuda:0", "--level", "head"], 1, "ERR_RLSD_UNSUPPORTED", /LM head is not computed on cuda:0/],
    [["--device", "cuda:0"], 1, "ERR_RLSD_BACKEND_UNAVAILABLE", /not-built\. There is no \/nowhere\.so/],
    [["--tokens", "100000000"], 1, "ERR_RLSD_OUT_OF_MEMORY", /need \d+\.\d GiB: .* at the level logits/],
  ])("%j ends with %i and one clear line", (args, expected, code, message) => {
    const { status, stdout, stderr } = bench([...args, "--json"], { RLSD_CUDA_LIBRARY: "/nowhere.so" });
    expect(status).toBe(expected);
    expect(JSON.parse(stdout)).toEqual({ kind: "error", error: { code, message: expect.stringMatching(message) } });
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("    at ");
  });

  test("an unknown option is a usage error, and --help shows an example", () => {
    expect(bench(["--nonsense"])).toMatchObject({ status: 2, stderr: expect.stringContaining("unknown option") });
    expect(bench(["--help"])).toMatchObject({ status: 0, stdout: expect.stringContaining("$ rlsd bench --level") });
  });

  test("Ctrl-C ends it in the middle of a level, with 130 and nothing more said", async () => {
    // Seconds of work on any machine: filling the head's matrix alone takes one.
    const child = spawn(process.execPath, argsOf([]));
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      if (text === "") setTimeout(() => child.kill("SIGINT"), 300);
      text += chunk.toString();
    });
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect({ code, errors }).toEqual({ code: 130, errors: "" });
    expect(text).toMatch(/^rlsd /);
    expect(text).not.toContain("LM head");
  });
});

const cxx = emulationCompiler();
if (cxx === undefined)
  process.stdout.write("not run: rlsd bench on an emulated device (no C++ compiler, or one without makecontext)\n");

(cxx === undefined ? describe.skip : describe)("rlsd bench --device", () => {
  let library = "";
  beforeAll(async () => {
    library = await emulatedCudaLibrary(cxx!);
  }, 600_000);

  test("times calls in flight on the device, and claims no ceiling there", () => {
    const env = { RLSD_CUDA_LIBRARY: library, RLSD_CUDA_EXPERIMENTAL: "1" };
    const { status, stdout, stderr } = bench([...small, "--device", "cuda:0", "--dtype", "bf16", "--json"], env);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const report = JSON.parse(stdout) as Report;
    expect(report.device).toMatchObject({ name: "emulated", memoryBytes: expect.any(Number) });
    expect(report.method.ceiling).toContain("npm run gpu:check");
    expect(report.figures.map(({ level, call }) => `${level} ${call}`)).toEqual([
      "logprob policyLoss",
      "logits policyLoss",
      "logits tokenLogProbs",
    ]);
    for (const one of report.figures) {
      checkFigure(one);
      expect(one).toMatchObject({ device: "cuda:0", tokens: N });
      expect(one.copy ?? one.percentOfCopy ?? one.threads).toBeUndefined();
    }
    expect(report.figures.map(({ rows }) => rows?.split(" ")[0])).toEqual([undefined, "rows-plain", undefined]);
  });

  test("is refused as any call is while the kernels have not passed on a GPU", () => {
    const env = { RLSD_CUDA_LIBRARY: library, RLSD_CUDA_EXPERIMENTAL: "0" };
    const { status, stdout } = bench([...small, "--device", "cuda:0", "--json"], env);
    expect(status).toBe(1);
    expect(JSON.parse(stdout).error.code).toBe("ERR_RLSD_UNSUPPORTED");
  });
});
