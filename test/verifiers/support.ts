import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createVerifier, type VerifierSpec, type WorkerVerifier } from "../../lib/verifiers/registry.js";
import type { Sample, Verdict } from "../../lib/verifiers/verifier.js";

export const root = resolve(__dirname, "../..");
export const fixture = (name: string) => join(root, "test/fixtures/verifiers", name);

export function sample(completion: string, row: Record<string, unknown> = {}, more: Partial<Sample> = {}): Sample {
  return { id: "s", prompt: "p", completion, finish: "stop", row, ...more };
}

/** A module that does what the completion tells it to. */
export const MISBEHAVE = fixture("misbehave.mjs");
/** Long enough that a busy machine runs an honest sample in time. */
export const DEADLINE = 2000;
const made: WorkerVerifier[] = [];

/** A module in one worker; see disposeMade. */
export function harness(options: Record<string, unknown> = {}): WorkerVerifier {
  const spec = { type: "module", path: MISBEHAVE, workers: 1, deadlineMs: DEADLINE, ...options };
  const verifier = createVerifier(spec) as WorkerVerifier;
  made.push(verifier);
  return verifier;
}

export async function disposeMade(): Promise<void> {
  await Promise.all(made.splice(0).map((verifier) => verifier.dispose?.()));
}

/** A signal that never aborts. */
export const never: AbortSignal = new AbortController().signal;

/** One verdict of a verifier made for it. */
export async function judge(
  spec: VerifierSpec,
  completion: string,
  row: Record<string, unknown> = {},
  more: Partial<Sample> = {},
): Promise<Verdict> {
  const verifier = createVerifier(spec);
  try {
    return await verifier.verify(sample(completion, row, more), never);
  } finally {
    await verifier.dispose?.();
  }
}

export const reward = async (...call: Parameters<typeof judge>) => (await judge(...call)).reward;
export const check = (spec: VerifierSpec, row: Record<string, unknown>) => () => createVerifier(spec).check?.(row);

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Gone, or, on Linux, an orphan that waits until the system's first process reaps it. */
export const hasEnded = (pid: number): boolean =>
  !isAlive(pid) || (process.platform === "linux" && / Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1")));

/** Until `done` holds; fails after `ms`. */
export async function until(done: () => boolean, ms = 60_000): Promise<void> {
  const end = Date.now() + ms;
  while (!done()) {
    if (Date.now() > end) throw new Error(`Not within ${ms} ms`);
    await new Promise((tick) => setTimeout(tick, 10));
  }
}
