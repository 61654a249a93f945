import { RlsdError } from "../errors.js";
import type { HarnessOptions } from "./harness-options.js";
import type { Verdict } from "./verifier.js";
import type { Ended } from "./worker-process.js";

/** What ended a worker. */
export type Fault = "timeout" | "crash" | "out-of-memory";

/** The verdict on the sample that is to blame. */
export function faultVerdict(fault: Fault, how: Ended, options: HarnessOptions): Verdict {
  const { onTimeout, onCrash, onMemory, deadlineMs, memoryMb } = options;
  if (fault === "timeout") return { reward: onTimeout, reason: fault, detail: { deadlineMs } };
  if (fault === "out-of-memory") return { reward: onMemory, reason: fault, detail: { memoryMb } };
  const detail = { code: how.code, signal: how.signal, stderr: how.stderr.slice(-500) };
  return { reward: onCrash, reason: fault, detail };
}

/** Why there is no worker that could judge. */
export function failedStart(how: Ended): RlsdError {
  const said = how.stderr.trim().split("\n");
  const why = said.find((line) => /error/i.test(line)) ?? said.at(-1);
  const message = `The verifier's worker ended before it was ready (code ${how.code}, signal ${how.signal}). ${why}`;
  return new RlsdError("ERR_RLSD_VERIFIER_START", message);
}
