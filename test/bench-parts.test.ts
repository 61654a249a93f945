import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Copier } from "../lib/cli/bench/copy-rate.js";
import { logitsBatch, logitsFiller, logProbBatch } from "../lib/cli/bench/data.js";
import { copyFigure, figure } from "../lib/cli/bench/figure.js";
import { examineMachine, lastLevelCache } from "../lib/cli/bench/machine.js";
import { type BenchFlags, readOptions } from "../lib/cli/bench/options.js";
import { makePlan } from "../lib/cli/bench/plan.js";
import { bar, levelText } from "../lib/cli/bench/report.js";
import { spreadOf, unsteadiness } from "../lib/cli/bench/statistics.js";
import { interleave, repeated } from "../lib/cli/bench/timing.js";
import { createPace } from "../lib/cli/bench.js";
import { Interrupted } from "../lib/cli/command.js";
import { policyLossSync, rlsd } from "../lib/index.js";
import { bf16Value, f16Value } from "../lib/rounding.js";

const GiB = 2 ** 30;
const flags = (given: Partial<BenchFlags> = {}): BenchFlags => ({ device: "cpu", ...given });
const cpu = (availableBytes: number, cacheBytes = 32 * 2 ** 20) => ({ availableBytes, cacheBytes, onDevice: false });

describe("statistics", () => {
  test.each([
    [[3], 3, 3, 3],
    [[4, 1], 1.75, 2.5, 3.25],
    [[9, 1, 5], 3, 5, 7],
    [[40, 10, 30, 20], 17.5, 25, 32.5],
    [[1, 2, 3, 4, 1000], 2, 3, 4],
  ])("of %j are the quartiles %d, %d, %d", (values, lowerQuartile, median, upperQuartile) => {
    const given = [...values];
    expect(spreadOf(given)).toEqual({ lowerQuartile, median, upperQuartile });
    expect(given).toEqual(values);
  });

  test("of nothing are no numbers", () => {
    expect(spreadOf([]).median).toBeNaN();
  });

  test("unsteadiness is the quartiles' distance as a share of the median", () => {
    expect(unsteadiness({ lowerQuartile: 9, median: 10, upperQuartile: 12 })).toBeCloseTo(0.3, 12);
  });
});

describe("rounds", () => {
  const pace = (signal = new AbortController().signal) => ({ signal, show: () => {} });

  test("let contestants take turns, and leave the warm-up out", async () => {
    const order: string[] = [];
    let time = 0;
    const contestant = (name: string) => () => {
      order.push(name);
      return ++time;
    };
    const limits = { milliseconds: 0, least: 2, most: 9, warmups: 1 };
    const times = await interleave("x", { call: contestant("call"), copy: contestant("copy") }, limits, pace());
    expect(order.join(" ")).toBe("call copy call copy call copy");
    expect(times).toEqual({ call: [3, 5], copy: [4, 6] });
  });

  test("end at the most, however fast they are", async () => {
    const limits = { milliseconds: 1e6, least: 1, most: 4, warmups: 0 };
    expect(await interleave("x", { call: () => 1 }, limits, pace())).toEqual({ call: [1, 1, 1, 1] });
  });

  test("end when they are interrupted", async () => {
    const control = new AbortController();
    let calls = 0;
    const call = () => {
      if (++calls === 3) control.abort();
      return 1;
    };
    const limits = { milliseconds: 1e6, least: 1, most: 1e6, warmups: 0 };
    await expect(interleave("x", { call }, limits, pace(control.signal))).rejects.toBeInstanceOf(Interrupted);
    expect(calls).toBe(3);
  });

  test("a repeated call is made as often as said, and its time is that of one", async () => {
    let calls = 0;
    const waits = () => {
      calls++;
      for (const end = performance.now() + 2; performance.now() < end; );
    };
    const time = await repeated(5, waits)();
    expect(calls).toBe(5);
    expect(time).toBeGreaterThanOrEqual(2);
  });
});

describe("progress", () => {
  const { signal } = new AbortController();

  test("is one line on a terminal, after two seconds, and is cleared", () => {
    let text = "";
    let now = 0;
    const terminal = { isTTY: true, columns: 30, write: (more: string) => (text += more) };
    const pace = createPace(signal, terminal, () => now);
    now = 1900;
    pace.show("logits, f32", 3);
    pace.clear();
    expect(text).toBe("");
    now = 2500;
    pace.show("logits, f32", 4);
    now = 2600;
    pace.show("logits, f32", 5);
    expect(text).toBe("\r\u001b[2Klogits, f32, round 4, 3 s");
    now = 3100;
    pace.show("a name that is longer than the line", 0);
    expect(text.split("\u001b[2K").at(-1)).toHaveLength(29);
    text = "";
    pace.clear();
    expect(text).toBe("\r\u001b[2K");
  });

  test("is nothing where nobody looks", () => {
    let text = "";
    let now = 0;
    const pipe = { isTTY: false, columns: 80, write: (more: string) => (text += more) };
    const pace = createPace(signal, pipe, () => now);
    now = 9000;
    pace.show("logits, f32", 4);
    pace.clear();
    expect(text).toBe("");
  });
});

describe("sizes", () => {
  test("leave the last-level cache where memory allows", () => {
    for (const cacheBytes of [2 ** 20, 32 * 2 ** 20, 96 * 2 ** 20]) {
      const { logits } = makePlan(readOptions(flags(), 2), cpu(64 * GiB, cacheBytes));
      expect(logits!.tokens * logits!.vocab * 2).toBeGreaterThanOrEqual(4 * cacheBytes);
    }
  });

  test.each([1, 2, 4])("take half of %d GiB at most", (available) => {
    const { bytes, logits, head } = makePlan(readOptions(flags(), 2), cpu(available * GiB));
    expect(bytes).toBeLessThanOrEqual((available / 2) * GiB);
    expect(logits!.vocab).toBe(151_936);
    expect(head!.vocab).toBeGreaterThan(4096);
  });

  test("are those that were given, counted to the byte", () => {
    const given = flags({ tokens: "100", vocab: "1000", hidden: "10", dtype: ["f32", "bf16"] });
    const plan = makePlan(readOptions(given, 2), cpu(8 * GiB));
    expect(plan.logits).toEqual({ tokens: 100, vocab: 1000, dtypes: ["f32", "bf16"] });
    expect(plan.head).toEqual({ tokens: 100, vocab: 1000, hidden: 10, dtypes: ["f32", "bf16"] });
    const head = (2 * 1000 + 3 * 100) * 10 * (4 + 2) + 64 * 2 ** 20;
    expect(plan.bytes).toBe(48 * 100 + 4 * 100 * 1000 * 4 + head);
  });

  test("that cannot fit are refused with what they need and what there is", () => {
    const given = readOptions(flags({ tokens: "4096", vocab: "65536", level: ["logits"], dtype: ["f32"] }), 2);
    expect(() => makePlan(given, cpu(4 * GiB))).toThrow(/is free, 4\.0 GiB, but these need 4\.0 GiB/);
    expect(() => makePlan(given, cpu(4 * GiB))).toThrow(expect.objectContaining({ code: "ERR_RLSD_OUT_OF_MEMORY" }));
    expect(makePlan(given, cpu(5 * GiB)).bytes).toBe(4 * GiB);
  });
});

describe("the machine", () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-bench-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function cache(cpuName: string, index: number, values: Record<string, string>): void {
    const path = join(folder, cpuName, "cache", `index${index}`);
    mkdirSync(path, { recursive: true });
    for (const [name, value] of Object.entries(values)) writeFileSync(join(path, name), `${value}\n`);
  }

  test("has the caches of the last level, each counted once", () => {
    for (const [name, shared] of [
      ["cpu0", "0-1"],
      ["cpu1", "0-1"],
      ["cpu2", "2"],
    ] as const) {
      const own = name.slice(3);
      cache(name, 0, { level: "1", type: "Data", size: "32K", shared_cpu_list: own });
      cache(name, 1, { level: "2", type: "Unified", size: "64M", shared_cpu_list: own });
      cache(name, 2, { level: "3", type: "Unified", size: "16M", shared_cpu_list: shared });
    }
    expect(lastLevelCache(folder)).toBe(32 * 2 ** 20);
  });

  test("may not tell of its caches: a size is assumed, and said to be", () => {
    expect(lastLevelCache(join(folder, "nowhere"))).toBeUndefined();
    const { cacheBytes, cacheAssumed } = examineMachine("1.2.3");
    expect(cacheBytes).toBeGreaterThan(0);
    expect(cacheAssumed).toBe(lastLevelCache() === undefined);
  });
});

describe("what is timed", () => {
  const decode = { f32: (x: number) => x, bf16: bf16Value, f16: f16Value };

  test.each(["f32", "bf16", "f16"] as const)("logits in %s lie between -4 and 4 and can be put back", (dtype) => {
    const shape = { tokens: 3, vocab: 700, dtype };
    const batch = logitsBatch(shape);
    const { logits } = batch.student;
    const first = logits.data.slice();
    const values = Array.from(first, decode[dtype]);
    expect(values.every((x) => Math.abs(x) <= 4)).toBe(true);
    expect(Math.max(...values) - Math.min(...values)).toBeGreaterThan(7);
    const { loss, gradient } = policyLossSync(batch, rlsd(), { inPlace: true });
    expect(Number.isFinite(loss)).toBe(true);
    expect(gradient.logits).toBe(logits);
    expect(logits.data).not.toEqual(first);
    logitsFiller(shape, 1)(logits);
    expect(logits.data).toEqual(first);
  });

  test("a batch of any size has its sequences within it", () => {
    for (const tokens of [1, 3, 257, 1000]) {
      const { cuSeqlens, advantages } = logProbBatch(tokens, 256);
      expect(cuSeqlens.at(-1)).toBe(tokens);
      expect(cuSeqlens).toHaveLength(advantages.length + 1);
    }
  });

  test("a copy moves its bytes twice, on every thread", async () => {
    const copier = await Copier.start(1000, 3);
    try {
      expect(copier.bytesMoved).toBe(2 * 4 * 84 * 3);
      for (let i = 0; i < 3; i++) expect(copier.copy()).toBeGreaterThan(0);
    } finally {
      await copier.stop();
    }
  });
});

describe("the table", () => {
  const subject = { level: "logits", call: "policyLossSync", variant: "in place", device: "cpu", threads: 2 } as const;
  const one = (times: number[], dtype: "f32" | "bf16") =>
    figure(
      { ...subject, dtype, tokens: 10, vocab: 100, callsPerRound: 1, bytesMoved: 3e6 },
      times,
      copyFigure(2e6, [1, 1, 1]),
    );

  test("aligns its columns and says how much of the copy each figure is", () => {
    const lines = levelText([one([2, 2, 2], "f32"), one([1000, 1500, 2000], "bf16")]).split("\n");
    expect(lines[0]).toBe("Logits: N = 10, V = 100, 2 threads");
    expect(lines[1]).toBe(
      "call            how       dtype    ms     quartiles     GB/s  copy GB/s  % of copy                rounds",
    );
    expect(lines[2]).toBe(
      "policyLossSync  in place  f32    2.00  2.00 to 2.00     1.50       2.00         75  [########..]       3",
    );
    expect(lines[3]).toBe(
      "policyLossSync  in place  bf16   1500  1250 to 1750  0.00200       2.00          0  [..........]       3",
    );
  });

  test("a bar has a mark for every ten percent, and ten at most", () => {
    expect([0, 4, 47, 100, 130].map(bar)).toEqual([
      "[..........]",
      "[..........]",
      "[#####.....]",
      "[##########]",
      "[##########]",
    ]);
    expect(bar(undefined)).toBe("");
  });
});
