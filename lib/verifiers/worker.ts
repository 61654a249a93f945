/**
 * Entry of a worker process: makes the verifier that the first message names, then judges samples one after another in the
 * order in which they came, which is what the parent's deadlines rely on.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { isError, textOf } from "../check.js";
import { RlsdError } from "../errors.js";
import { withPlace } from "./error-place.js";
import { killGroup } from "./kill-group.js";
import { createJudge } from "./registry.js";
import type { FromWorker, ToWorker, WorkerSpec } from "./wire.js";

const channel = process.send?.bind(process);
// Programs that say "ready" to whoever started them (pm2) do so here too, where it would be read as a verdict: nobody hears it.
process.send = () => false;

function send(message: FromWorker): void {
  // Nobody hears it any more. The error that this is would end the process alone, and leave what it has started.
  channel?.(message, undefined, undefined, (error) => error && killGroup(process.pid));
}

/** What a worker judges with: a verifier's judge, or what another room makes in the same way. */
interface WorkerJudge {
  prepare?(): Promise<void>;
  judge(sample: unknown, signal: AbortSignal): unknown;
}

interface Maker {
  createJudge(spec: WorkerSpec["spec"]): WorkerJudge;
}

async function judge(made: WorkerJudge, message: ToWorker & { kind: "judge" }): Promise<unknown> {
  try {
    return await made.judge(message.sample, new AbortController().signal);
  } catch (error) {
    if (isError(error, RangeError) && /call stack/.test(error.message)) {
      return { reward: null, reason: "stack", detail: { message: error.message } };
    }
    return { reward: null, reason: "error", detail: { message: withPlace(error) } };
  }
}

async function start({ maker, spec }: WorkerSpec): Promise<WorkerJudge | undefined> {
  try {
    const make = maker === undefined ? createJudge : ((await import(maker)) as Maker).createJudge;
    const made = make(spec) as WorkerJudge;
    await made.prepare?.();
    await watched;
    send({ kind: "ready" });
    return made;
  } catch (error) {
    const code = isError(error, RlsdError) ? error.code : "ERR_RLSD_VERIFIER_START";
    send({ kind: "failed", code, message: isError(error, Error) ? error.message : textOf(error) });
    return undefined;
  }
}

const watchdog = new Worker(new URL("./watchdog.js", import.meta.url), {
  resourceLimits: { maxOldGenerationSizeMb: 16 },
});
const watched = once(watchdog, "online");
watchdog.unref();
process.on("disconnect", () => killGroup(process.pid));

let made: Promise<WorkerJudge | undefined> = Promise.resolve(undefined);
let last: Promise<void> = Promise.resolve();
process.on("message", (message: ToWorker) => {
  if (message.kind === "start") made = start(message);
  else {
    last = last.then(async () => {
      const judgeOf = await made;
      if (judgeOf === undefined) return;
      send({ kind: "verdict", id: message.id, verdict: await judge(judgeOf, message) });
    });
  }
});
