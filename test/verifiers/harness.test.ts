import { execFileSync, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { faultVerdict } from "../../lib/verifiers/fault.js";
import type { HarnessOptions } from "../../lib/verifiers/harness-options.js";
import { killGroup } from "../../lib/verifiers/kill-group.js";
import { createVerifier } from "../../lib/verifiers/registry.js";
import type { Verdict } from "../../lib/verifiers/verifier.js";
import { workerModule } from "../../lib/verifiers/worker-process.js";
import {
  DEADLINE,
  disposeMade,
  fixture,
  harness,
  hasEnded,
  isAlive,
  MISBEHAVE,
  never,
  sample,
  until,
} from "./support.js";

/** Process ids of the children of this process, zombies included. */
function children(): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === process.pid;
      } catch {
        return false;
      }
    })
    .map(Number);
}

afterEach(disposeMade);

test("judges in a worker what it would judge here", async () => {
  const verifier = harness();
  const verdicts = await Promise.all(["x", "y"].map((said) => verifier.verify(sample(said, { answer: "x" }), never)));
  expect(verdicts).toEqual([{ reward: 1 }, { reward: 0 }]);
});

test("passes 64-bit integers of a data row", async () => {
  const verdict = await harness().verify(sample("x", { answer: "x", id: 2n ** 60n }), never);
  expect(verdict.reward).toBe(1);
});

test("what cannot be sent to a worker is an error, and the next sample is judged", async () => {
  const verifier = harness();
  const bad = verifier.verify(sample("x", { answer: () => "x" }), never);
  await expect(bad).rejects.toMatchObject({ code: "ERR_RLSD_VERIFIER_ROW" });
  expect((await verifier.verify(sample("x", { answer: "x" }), never)).reward).toBe(1);
  const options = { bonus: () => 1 };
  expect(() => createVerifier({ type: "module", path: MISBEHAVE, options })).toThrow(/plain data/);
});

describe("a fault ends its own sample and no other", () => {
  const faults: [string, string, Partial<Verdict>][] = [
    ["an endless loop", "hang", { reward: null, reason: "timeout" }],
    ["a loop that ignores every catchable signal", "hang and ignore signals", { reward: null, reason: "timeout" }],
    ["a promise that never settles", "never settle", { reward: null, reason: "timeout" }],
    ["a process that aborts", "abort", { reward: null, reason: "crash" }],
    ["a process that exits with success", "exit", { reward: null, reason: "crash" }],
    [
      "a rejection that nobody handles",
      "reject later",
      { reward: null, reason: "crash", detail: expect.objectContaining({ message: "Error: later" }) },
    ],
    [
      "an exception",
      "throw",
      {
        reward: null,
        reason: "error",
        detail: { message: expect.stringMatching(/^Error: .* \(.*misbehave\.mjs:\d+:\d+\)$/) },
      },
    ],
    [
      "what cannot even be asked whether it is an error",
      "throw a proxy",
      { reward: null, reason: "error", detail: { message: "something without a text" } },
    ],
    [
      "an error with a whole book in it, of which no log is filled",
      "throw a book",
      {
        reward: null,
        reason: "error",
        detail: {
          message: expect.stringMatching(
            /^Error: [/ ]{65529}\.\.\. \(8000007 characters\) \(.*misbehave\.mjs:\d+:\d+\)$/,
          ),
        },
      },
    ],
    ["a stack overflow", "deep", { reward: null, reason: "stack" }],
    ["a verdict that is none", "nonsense", { reward: null, reason: "bad-verdict" }],
    ["a reward that is not a number", "nan", { reward: null, reason: "bad-verdict" }],
    ["a detail that no log can hold", "large detail", { reward: null, reason: "bad-verdict" }],
    ["a detail with more than data in it", "function in detail", { reward: 1, detail: { why: "so" } }],
  ];
  test.each(faults)("%s", async (_, completion, expected) => {
    const verifier = harness();
    const row = { answer: "good" };
    const all = ["good", completion, "good", "bad"].map((said) => verifier.verify(sample(said, row), never));
    const [before, verdict, after, wrong] = await Promise.all(all);
    expect(verdict).toMatchObject(expected);
    expect([before?.reward, after?.reward, wrong?.reward]).toEqual([1, 1, 0]);
  });

  test("a heap that grows without end", async () => {
    const verifier = harness({ workers: 1, memoryMb: 96, deadlineMs: 30_000 });
    const [verdict, after] = await Promise.all([
      verifier.verify(sample("heap"), never),
      verifier.verify(sample("x", { answer: "x" }), never),
    ]);
    expect(verdict).toMatchObject({ reward: null, reason: "out-of-memory" });
    expect(after.reward).toBe(1);
    expect(verifier.stats).toMatchObject({ outOfMemory: 1, judged: 1 });
  });

  (process.platform === "linux" ? test : test.skip)("memory outside the heap", async () => {
    const verifier = harness({ workers: 1, memoryMb: 160, deadlineMs: 30_000 });
    expect(await verifier.verify(sample("buffers"), never)).toMatchObject({ reward: null, reason: "out-of-memory" });
  });
});

test("a verifier may declare a fault to be the answer's own", async () => {
  const verifier = harness({ workers: 1, onTimeout: 0, onCrash: 0 });
  const [hang, crash] = await Promise.all(["hang", "abort"].map((said) => verifier.verify(sample(said), never)));
  expect(hang).toMatchObject({ reward: 0, reason: "timeout" });
  expect(crash).toMatchObject({ reward: 0, reason: "crash" });
});

test("counts what happened", async () => {
  const verifier = harness();
  await Promise.all(["x", "hang", "exit", "x"].map((said) => verifier.verify(sample(said, { answer: "x" }), never)));
  expect(verifier.stats).toMatchObject({ judged: 2, timeouts: 1, crashes: 1, outOfMemory: 0, workersStarted: 3 });
});

test("a killed worker takes the processes it started with it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-"));
  const pidFile = join(folder, "pid");
  const verdict = await harness().verify(sample("spawn", { pidFile }), never);
  expect(verdict.reason).toBe("timeout");
  const pid = Number(readFileSync(pidFile, "utf8"));
  await until(() => hasEnded(pid));
  rmSync(folder, { recursive: true });
});

describe("abort", () => {
  test("a waiting and a running sample reject with the signal's reason; the others are judged", async () => {
    const verifier = harness({ deadlineMs: 60_000 });
    await verifier.verify(sample("x", { answer: "x" }), never);
    const controller = new AbortController();
    const running = verifier.verify(sample("hang"), controller.signal);
    const waiting = verifier.verify(sample("x"), controller.signal);
    const other = verifier.verify(sample("x", { answer: "x" }), never);
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await expect(running).rejects.toThrow("enough");
    await expect(waiting).rejects.toThrow("enough");
    expect((await other).reward).toBe(1);
    expect(verifier.stats.aborted).toBe(2);
  });

  test("a signal that was aborted before rejects at once", async () => {
    await expect(harness().verify(sample("x"), AbortSignal.abort(new Error("before")))).rejects.toThrow("before");
  });
});

test("an export that takes options is called with them", async () => {
  const verifier = harness({ export: "withOptions", options: { bonus: 0.5 } });
  expect((await verifier.verify(sample("x", { answer: "x" }), never)).reward).toBe(1.5);
});

test("more waiting samples than allowed are an error that says so", async () => {
  const verifier = harness({ workers: 1, maxQueue: 2 });
  const all = [1, 2, 3].map(() => verifier.verify(sample("x"), never));
  const outcomes = await Promise.allSettled(all);
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected"]);
  expect(outcomes[2]).toMatchObject({ reason: { code: "ERR_RLSD_VERIFIER_QUEUE" } });
});

test("a verdict that came while this thread was busy past the deadline counts, and its worker lives on", async () => {
  const verifier = harness();
  await verifier.verify(sample("x"), never);
  const verdict = verifier.verify(sample("x", { answer: "x" }), never);
  const end = performance.now() + DEADLINE + 400;
  while (performance.now() < end);
  expect(await verdict).toEqual({ reward: 1 });
  await verifier.verify(sample("x"), never);
  expect(verifier.stats).toMatchObject({ timeouts: 0, workersStarted: 1 });
});

test("after dispose nothing runs and a call is refused", async () => {
  const verifier = harness({ deadlineMs: 60_000 });
  const { detail } = await verifier.verify(sample("pid"), never);
  const hanging = verifier.verify(sample("hang"), never);
  const refused = expect(hanging).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
  await verifier.dispose?.();
  await refused;
  expect(isAlive(Number(detail?.pid))).toBe(false);
  await expect(verifier.verify(sample("x"), never)).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
});

/** Open file descriptors of this process. */
const descriptors = () => (process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0);

test("thousands of failing samples leave no process and no descriptor behind", async () => {
  const before = [children().length, descriptors()];
  const verifier = harness({ workers: 2 });
  const kinds = ["throw", "nonsense", "nan", "deep"];
  const row = { answer: "good" };
  const count = 4000;
  const said = (i: number) =>
    i % 1000 === 500 ? "hang" : i % 400 === 50 ? "exit" : i % 2 ? "good" : kinds[(i / 2) % 4]!;
  const all = Array.from({ length: count }, (_, i) => verifier.verify(sample(said(i), row), never));
  const verdicts = await Promise.all(all);
  const rewards = (value: number | null) => verdicts.filter(({ reward }) => reward === value).length;
  expect([rewards(1), rewards(null)]).toEqual([count / 2, count / 2]);
  expect(verifier.stats).toMatchObject({ timeouts: 4, crashes: 10, waiting: 0, judged: count - 14 });
  expect(verifier.stats.workersStarted).toBeLessThanOrEqual(16);
  await verifier.dispose?.();
  expect([children().length, descriptors()]).toEqual(before);
});

test("a process that is done exits, with idle workers in its hands", () => {
  const out = execFileSync(process.execPath, [fixture("exits.mjs"), MISBEHAVE], { timeout: 120_000, encoding: "utf8" });
  expect(out).toBe("1\n");
});

test("a worker in an endless loop does not outlive a parent that was killed", async () => {
  const parent = spawn(process.execPath, [fixture("orphan.mjs"), MISBEHAVE], { stdio: ["ignore", "pipe", "inherit"] });
  const pid = await new Promise<number>((resolve) => {
    parent.stdout.once("data", (chunk: Buffer) => resolve(Number(chunk.toString())));
  });
  expect(isAlive(pid)).toBe(true);
  parent.kill("SIGKILL");
  await until(() => hasEnded(pid));
});

test("a worker in an endless loop does not outlive the thread that started it", async () => {
  const thread = new Worker(fixture("orphan.mjs"), { argv: [MISBEHAVE] });
  const [pid] = (await once(thread, "message")) as [number];
  expect(isAlive(pid)).toBe(true);
  await thread.terminate();
  await until(() => hasEnded(pid));
});

test("a worker whose verdict nobody hears any more ends with all that it started", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-"));
  const [pidFile, goFile] = [join(folder, "pid"), join(folder, "go")];
  // What ties it to its parent stays open, so that nothing else ends it; it takes no notice of events until it has its verdict.
  const worker = fork(fileURLToPath(workerModule("verifiers", "worker")), [], {
    detached: true,
    serialization: "advanced",
    stdio: ["ignore", "ignore", "ignore", "ipc", "pipe"],
  });
  worker.send({ kind: "start", spec: { type: "module", path: MISBEHAVE } });
  worker.send({ kind: "judge", id: 0, sample: sample("spawn and wait", { pidFile, goFile }) });
  await until(() => existsSync(pidFile) && readFileSync(pidFile, "utf8") !== "");
  const pid = Number(readFileSync(pidFile, "utf8"));
  expect([isAlive(worker.pid!), isAlive(pid)]).toEqual([true, true]);
  worker.disconnect();
  writeFileSync(goFile, "");
  try {
    await until(() => hasEnded(worker.pid!), 10_000);
    await until(() => hasEnded(pid), 10_000);
  } finally {
    killGroup(worker.pid!);
    rmSync(folder, { recursive: true });
  }
});

test("the cause of a crash is an error of a module of Python's, by its whole name", () => {
  const stderr =
    "Traceback (most recent call last):\njson.decoder.JSONDecodeError: Extra data\n\nError: the program ended\n";
  const ended = { code: 1, signal: null, stderr, heapExhausted: false };
  expect(faultVerdict("crash", ended, { onCrash: null } as HarnessOptions).detail).toMatchObject({
    message: "json.decoder.JSONDecodeError: Extra data",
  });
});

test("the cause of a crash is one line, also where lines end as on Windows", () => {
  const stderr = "file:///C:/mine.mjs:3\r\n  throw later;\r\n\r\nError: later\r\n    at file:///C:/mine.mjs:3:9\r\n";
  const ended = { code: 1, signal: null, stderr, heapExhausted: false };
  expect(faultVerdict("crash", ended, { onCrash: null } as HarnessOptions).detail).toMatchObject({
    message: "Error: later",
  });
});
