import { RlsdError } from "../errors.js";
import type { Outcome } from "./binding.js";
import { native } from "./load.js";

/** rlsd_status of csrc/include/rlsd/rlsd.h. */
const STATUS_OK = 0;
const STATUS_CANCELLED = 5;

const CODES: readonly RlsdError["code"][] = [
  "ERR_RLSD_INTERNAL",
  "ERR_RLSD_INVALID_ARGUMENT",
  "ERR_RLSD_UNSUPPORTED",
  "ERR_RLSD_OUT_OF_MEMORY",
  "ERR_RLSD_NON_FINITE",
  "ERR_RLSD_CANCELLED",
  "ERR_RLSD_DEVICE",
  "ERR_RLSD_INTERNAL",
];

function toError(status: number, message: string, index: number, count: number): RlsdError {
  const error = new RlsdError(CODES[status] ?? "ERR_RLSD_INTERNAL", message || `The native call failed (${status}).`);
  return index < 0 ? error : Object.assign(error, { index, count });
}

/** Throws unless a synchronous call returned RLSD_OK. */
export function throwUnlessOk(status: number): void {
  if (status !== STATUS_OK) throw toError(status, ...native.lastError());
}

/** Throws unless a queued call ended with RLSD_OK; a cancelled one with the signal's reason. */
export function throwUnlessDone(outcome: Outcome, signal?: AbortSignal): void {
  if (outcome === STATUS_OK) return;
  if (typeof outcome === "number") throw toError(outcome, ...native.lastError());
  if (outcome[0] === STATUS_CANCELLED && signal?.aborted) throw signal.reason;
  throw toError(...outcome);
}
