import { RlsdError } from "../errors.js";
import type { HarnessOptions } from "./harness-options.js";
import type { Verdict } from "./verifier.js";
import type { Ended } from "./worker-process.js";

/** What ended a worker. */
export type Fault = "timeout" | "crash" | "out-of-memory";

/** On Windows lines end with a return and a line feed. */
const linesOf = (stderr: string): string[] => stderr.trim().split(/\r?\n/);

/** The line of what a process wrote that says why it ended. Node's own words begin with the source line; the error comes below. */
function causeIn(stderr: string): string | undefined {
  const lines = linesOf(stderr);
  return lines.find((line) => /^(?:Uncaught )?[\w.]*Error\b/.test(line)) ?? lines.find((line) => /error/i.test(line));
}

/** The verdict on the sample that is to blame. */
export function faultVerdict(fault: Fault, how: Ended, options: HarnessOptions): Verdict {
  const { onTimeout, onCrash, onMemory, deadlineMs, memoryMb } = options;
  if (fault === "timeout") {
    const last = linesOf(how.stderr).at(-1);
    const wrote = last ? `, and the last that was written is: ${last.slice(0, 200)}` : "";
    return {
      reward: onTimeout,
      reason: fault,
      detail: { message: `no answer within ${deadlineMs / 1000} s${wrote}`, deadlineMs },
    };
  }
  if (fault === "out-of-memory") return { reward: onMemory, reason: fault, detail: { memoryMb } };
  const ended = how.signal === null ? `it ended with code ${how.code}` : `it was ended by ${how.signal}`;
  const message = causeIn(how.stderr) ?? ended;
  const detail = { message, code: how.code, signal: how.signal, stderr: how.stderr.slice(-500) };
  return { reward: onCrash, reason: fault, detail };
}

/** Why there is no worker that could judge. */
export function failedStart(
  fault: Fault,
  { code, signal, stderr }: Ended,
  what: string,
  { startMs, memoryMb }: HarnessOptions,
): RlsdError {
  const found = {
    timeout: `was not ready within ${startMs / 1000} s: expected a module that loads sooner, or a larger "startMs"`,
    "out-of-memory": `took more than ${memoryMb} MiB before it was ready: expected less, or a larger "memoryMb"`,
    crash: `ended before it was ready (code ${code}, signal ${signal})`,
  };
  const why = causeIn(stderr) ?? linesOf(stderr).at(-1);
  return new RlsdError("ERR_RLSD_VERIFIER_START", `The ${what}'s worker ${found[fault]}. ${why}`.trim());
}
