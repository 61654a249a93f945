// What must run in a process of its own: engine-child.ts memory | shared | exit | terminate | leave, and what these start: worker | late | leaving
import { parentPort, Worker } from "node:worker_threads";
import { createPolicy, rlsd } from "../../lib/index.js";

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Megabytes that the process holds. */
function resident(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss() / 2 ** 20;
}

async function useOnce(): Promise<{ held: number; after: number }> {
  const policy = await createPolicy({ vocabSize: 1000, hiddenSize: 512, numLayers: 3, numHeads: 8, maxLength: 64 });
  const prompt = Int32Array.of(1, 2);
  const completion = Int32Array.from({ length: 40 }, (_, i) => i);
  await policy.accumulate({ sequences: [{ prompt, completion }], advantages: Float32Array.of(1) }, rlsd());
  await policy.step({ learningRate: 1e-4 });
  await policy.generate([prompt], { maxTokens: 8, seed: 0, count: 4 });
  const held = resident();
  await policy.dispose();
  return { held, after: resident() };
}

async function memory(): Promise<void> {
  const first = await useOnce();
  const { after } = await useOnce();
  process.stdout.write(JSON.stringify({ held: first.held, first: first.after, last: after }));
}

async function shared(): Promise<void> {
  const base = await createPolicy({ vocabSize: 1000, hiddenSize: 512, numLayers: 3, numHeads: 8, maxLength: 64 });
  const alone = resident();
  const policy = await base.withLora({ rank: 2 });
  const readers = [policy, await policy.base(), await policy.snapshot(), await base.withLora({ rank: 1 })];
  const together = resident();
  await base.dispose();
  for (const reader of readers.slice(1)) await reader.dispose();
  const last = resident();
  await policy.dispose();
  process.stdout.write(JSON.stringify({ alone, together, last, after: resident() }));
}

async function busy(): Promise<void> {
  const policy = await createPolicy({ vocabSize: 300, hiddenSize: 128, numLayers: 4, numHeads: 4, maxLength: 4096 });
  for (let seed = 0; seed < 3; seed++) {
    void policy.generate([Int32Array.of(1)], { maxTokens: 4000, seed, count: 64 });
  }
}

async function exit(): Promise<void> {
  await busy();
  await sleep(50);
  process.stdout.write("leaving");
  process.exit(7);
}

/** Workers in a mode, one after another, each terminated so many milliseconds after it said that it works. */
async function terminateAfter(mode: string, delays: readonly number[]): Promise<void> {
  for (const delay of delays) {
    // A worker inherits the flags of its process, and with them the hooks that read TypeScript.
    const worker = new Worker(new URL(import.meta.url), { argv: [mode] });
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await sleep(delay);
    await worker.terminate();
  }
}

async function terminate(): Promise<void> {
  await terminateAfter("worker", [0, 5, 10, 15]);
  await terminateAfter("late", [150, 150, 150]);
  process.stdout.write("alive");
}

async function inWorker(): Promise<void> {
  await busy();
  parentPort?.postMessage("working");
}

/** Tokens are drawn while nobody can take them: their call ends, and is told so, when the worker ends. */
async function late(): Promise<void> {
  const policy = await createPolicy({ vocabSize: 200, hiddenSize: 64, numLayers: 3, numHeads: 2, maxLength: 128 });
  void policy.generate([Int32Array.of(1)], { maxTokens: 4, seed: 1, count: 4 });
  await new Promise((resolve) => setImmediate(resolve));
  parentPort?.postMessage("working");
  for (;;);
}

/** A worker leaves with calls that wait, and cancels them while it exits. */
async function leave(): Promise<void> {
  const worker = new Worker(new URL(import.meta.url), { argv: ["leaving"] });
  const code = await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
  process.stdout.write(String(code));
}

async function leaving(): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const policy = await createPolicy({ vocabSize: 300, hiddenSize: 128, numLayers: 4, numHeads: 4, maxLength: 4096 });
  const sequences = [{ prompt: Int32Array.of(1), completion: new Int32Array(2000) }];
  for (let i = 0; i < 64; i++) void policy.score(sequences, { signal }).catch(() => undefined);
  await sleep(50);
  process.once("exit", () => {
    controller.abort();
    // Memory that is taken again shows whether what was given back was written.
    for (let i = 0; i < 2000; i++) structuredClone({ i, text: "x".repeat(i) });
  });
  process.exit(5);
}

const modes: Readonly<Record<string, () => Promise<void>>> = {
  memory,
  shared,
  exit,
  terminate,
  worker: inWorker,
  late,
  leave,
  leaving,
};
void modes[process.argv[2] ?? ""]?.();
