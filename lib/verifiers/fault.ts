import { RlsdError } from "../errors.js";
import type { HarnessOptions } from "./harness-options.js";
import type { Verdict } from "./verifier.js";
import type { Ended } from "./worker-process.js";

/** What ended a worker. */
export type Fault = "timeout" | "crash" | "out-of-memory";

/** The line of what a process wrote that says why it ended. Node's own words begin with the source line; the error comes below. */
function causeIn(stderr: string): string | undefined {
  const lines = stderr.trim().split("\n");
  return lines.find((line) => /^(?:Uncaught )?\w*Error\b/.test(line)) ?? lines.find((line) => /error/i.test(line));
}

/** The verdict on the sample that is to blame. */
export function faultVerdict(fault: Fault, how: Ended, options: HarnessOptions): Verdict {
  const { onTimeout, onCrash, onMemory, deadlineMs, memoryMb } = options;
  if (fault === "timeout") return { reward: onTimeout, reason: fault, detail: { deadlineMs } };
  if (fault === "out-of-memory") return { reward: onMemory, reason: fault, detail: { memoryMb } };
  const ended = how.signal === null ? `it ended with code ${how.code}` : `it was ended by ${how.signal}`;
  const message = causeIn(how.stderr) ?? ended;
  const detail = { message, code: how.code, signal: how.signal, stderr: how.stderr.slice(-500) };
  return { reward: onCrash, reason: fault, detail };
}

/** Why there is no worker that could judge. */
export function failedStart(how: Ended, what: string): RlsdError {
  const why = causeIn(how.stderr) ?? how.stderr.trim().split("\n").at(-1);
  const message = `The ${what}'s worker ended before it was ready (code ${how.code}, signal ${how.signal}). ${why}`;
  return new RlsdError("ERR_RLSD_VERIFIER_START", message);
}
