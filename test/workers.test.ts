import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { grpo, type PolicyBatch, policyLoss, policyLossSync } from "../lib/index.js";

/** What every script below begins with, and what loads the library. `batch(n)` takes about n / 40 microseconds. */
const load = (index: string): string =>
  `import { grpo, rlsd, policyLoss, policyLossSync } from ${JSON.stringify(index)};`;
const tools = `
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
const batch = (n) => ({
  student: { logProbs: new Float32Array(n).fill(-1) },
  teacher: { logProbs: new Float32Array(n).fill(-0.9) },
  cuSeqlens: Int32Array.from({ length: 1 + n / 100 }, (_, b) => 100 * b),
  advantages: Float32Array.from({ length: n / 100 }, (_, b) => (b % 2) - 0.5),
});
const worker = (code) => new Worker(new URL("data:text/javascript," + encodeURIComponent(code)), { env: process.env });
`;

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly output: string;
  readonly seconds: number;
}

/** Runs a module in a process of its own; \`WORKER\` in it is a script for worker(), INDEX where the library is. */
async function run(main: string, inWorker = "", loadsInMain = true): Promise<Ended> {
  const start = performance.now();
  const index = pathToFileURL(join(__dirname, "../dist/index.js")).href;
  const script = JSON.stringify(`${load(index)}${tools}\n${inWorker}`);
  const head = `${loadsInMain ? load(index) : ""}${tools}\nconst INDEX = ${JSON.stringify(index)};`;
  const source = `${head}\nconst WORKER = ${script};\n${main}`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], { timeout: 60_000 });
  let output = "";
  child.stdout.on("data", (text: Buffer) => {
    output += text;
  });
  child.stderr.on("data", (text: Buffer) => {
    output += text;
  });
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return { code, signal, output: output.trim(), seconds: (performance.now() - start) / 1000 };
}

describe("worker threads", () => {
  it("give the main thread's bits when several run at once", async () => {
    const body = `
      const digest = (r) => [r.loss, ...r.gradient.logProbs.subarray(0, 3), r.stats.deltaMean].join();
      const results = [];
      for (let i = 0; i < 5; i++) results.push(digest(await policyLoss(batch(20000), rlsd())), digest(policyLossSync(batch(20000), rlsd())));`;
    const ended = await run(
      `${body}
      const all = await Promise.all(Array.from({ length: 4 }, () => new Promise((done, fail) => {
        const w = worker(WORKER);
        w.on("message", done).on("error", fail);
      })));
      console.log(new Set([...results, ...all.flat()]).size);`,
      `${body} parentPort.postMessage(results);`,
    );
    expect(ended).toMatchObject({ code: 0, output: "1" });
  });

  it("may be terminated while calls run and wait: 40 of them, and the process lives", async () => {
    const ended = await run(
      `
      const workers = Array.from({ length: 40 }, () => worker(WORKER).on("error", (e) => console.log("error", e)));
      await Promise.all(workers.map(async (w, i) => {
        if (i % 4 > 0) await new Promise((done) => w.once("message", done));
        if (i % 4 > 1) await new Promise((done) => setTimeout(done, i));
        await w.terminate();
      }));
      console.log((await policyLoss(batch(100), grpo())).stats.tokens);`,
      `
      parentPort.postMessage("running");
      const loop = async () => { for (;;) await Promise.all([1, 2, 3].map(() => policyLoss(batch(40000), rlsd()).catch(() => 0))); };
      loop();
      setInterval(() => { try { policyLossSync({ ...batch(100), advantages: 1 }, grpo()); } catch {} }, 1);`,
    );
    expect(ended).toMatchObject({ code: 0, signal: null, output: "100" });
  });

  it("that first loaded the library may end before the main thread uses it", async () => {
    const ended = await run(
      `
      const w = worker(WORKER);
      await new Promise((done) => w.once("exit", done));
      const { policyLossSync, grpo } = await import(INDEX);
      console.log(policyLossSync(batch(20000), grpo()).stats.tokens);`,
      "await policyLoss(batch(20000), grpo());",
      false,
    );
    expect(ended).toMatchObject({ code: 0, output: "20000" });
  });

  (process.platform === "linux" ? it : it.skip)("leave the library's code to the threads that are in it", async () => {
    const ended = await run(
      `
      import { readFileSync } from "node:fs";
      await new Promise((done) => worker(WORKER).once("exit", done));
      console.log(/rlsd[^/]*\\.node$/m.test(readFileSync("/proc/self/maps", "utf8")));`,
      "await policyLoss(batch(20000), grpo());",
      false,
    );
    expect(ended).toMatchObject({ code: 0, output: "true" });
  });
});

describe("the process", () => {
  it("ends by itself when nothing is pending, soon", async () => {
    const ended = await run(
      `await policyLoss(batch(20000), grpo()); policyLossSync(batch(20000), grpo()); console.log("end");`,
    );
    expect(ended).toMatchObject({ code: 0, output: "end" });
    expect(ended.seconds).toBeLessThan(50);
  });

  it("stays for a call that is pending though nothing awaits it", async () => {
    const ended = await run(`policyLoss(batch(400000), grpo()).then((r) => console.log(r.stats.tokens));`);
    expect(ended).toMatchObject({ code: 0, output: "400000" });
  });

  it("may exit with calls running and waiting", async () => {
    const ended = await run(`
      for (let i = 0; i < 20; i++) policyLoss(batch(400000), rlsd()).then(() => console.log("done"));
      setTimeout(() => process.exit(3), 5);`);
    expect([ended.code, ended.signal]).toEqual([3, null]);
    expect(ended.output.replace(/done\n?/g, "")).toBe("");
  });

  it("may exit in the middle of module loading with a call pending", async () => {
    const ended = await run(`policyLoss(batch(400000), rlsd()); process.exit(0);`);
    expect(ended).toMatchObject({ code: 0, signal: null, output: "" });
  });
});

describe("queued calls", () => {
  const batch = (n: number): PolicyBatch => ({
    student: { logProbs: new Float32Array(n).fill(-1) },
    cuSeqlens: Int32Array.from({ length: 1 + n / 100 }, (_, b) => 100 * b),
    advantages: new Float32Array(n / 100).fill(1),
  });

  it("arrive first in, first out, large ones before small ones behind them", async () => {
    const order: number[] = [];
    const sizes = [200000, 100, 50000, 100, 0, 10000];
    await Promise.all(sizes.map((n, i) => policyLoss(batch(n), grpo()).then(() => order.push(i))));
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it("leave the thread free while they run", async () => {
    let turns = 0;
    // Calls that held the thread would never let it turn; a busy machine may run it late, so it has several tries.
    for (let attempt = 0; attempt < 50 && turns < 3; attempt++) {
      const timer = setInterval(() => turns++, 0);
      await policyLoss(batch(400000), grpo());
      clearInterval(timer);
    }
    expect(turns).toBeGreaterThan(2);
  });

  it("with a signal that is aborted already write nothing and reject with its reason", async () => {
    const out = { gradientLogProbs: new Float32Array(100).fill(7) };
    const reason = new Error("stop");
    const call = { signal: AbortSignal.abort(reason), out };
    await expect(policyLoss(batch(100), grpo(), call)).rejects.toBe(reason);
    expect(() => policyLossSync(batch(100), grpo(), call)).toThrow(reason);
    expect(out.gradientLogProbs.every((g) => g === 7)).toBe(true);
  });

  it("aborted while they wait write nothing; the others are not disturbed", async () => {
    const controller = new AbortController();
    const reason = { why: "changed my mind" };
    const out = { gradientLogProbs: new Float32Array(100).fill(7) };
    // Half a second of work, were it let: however late this thread is, the others wait behind it.
    const ahead = new AbortController();
    const occupied = policyLoss(batch(10_000_000), grpo(), { signal: ahead.signal, threads: 1 });
    const first = policyLoss(batch(400000), grpo());
    const waiting = policyLoss(batch(100), grpo(), { signal: controller.signal, out });
    const last = policyLoss(batch(200), grpo());
    controller.abort(reason);
    ahead.abort();
    await expect(waiting).rejects.toBe(reason);
    await expect(occupied).rejects.toMatchObject({ name: "AbortError" });
    expect((await first).stats.tokens).toBe(400000);
    expect((await last).stats.tokens).toBe(200);
    expect(out.gradientLogProbs.every((g) => g === 7)).toBe(true);
  });

  it("aborted while they run reject soon with the reason, and the next one works", async () => {
    let outcome = "none";
    // A busy machine may let the call end before this thread gets to abort it.
    for (let attempt = 0; attempt < 20 && outcome !== "AbortError"; attempt++) {
      const controller = new AbortController();
      const running = policyLoss(batch(4_000_000), grpo(), { signal: controller.signal, threads: 1 });
      setTimeout(() => controller.abort(), 5);
      outcome = await running.then(
        () => "done",
        (error) => error.name,
      );
    }
    expect(outcome).toBe("AbortError");
    expect((await policyLoss(batch(100), grpo())).stats.tokens).toBe(100);
  });

  it("let go of their signal when they end", async () => {
    const controller = new AbortController();
    const added = jest.spyOn(controller.signal, "addEventListener");
    const removed = jest.spyOn(controller.signal, "removeEventListener");
    await policyLoss(batch(100), grpo(), { signal: controller.signal });
    expect(added).toHaveBeenCalledTimes(1);
    expect(removed.mock.calls[0]!.slice(0, 2)).toEqual(added.mock.calls[0]!.slice(0, 2));
  });
});
