import { checkSignal } from "../check.js";
import type { Outcome } from "../native/binding.js";
import type { DeviceHandle } from "../native/device-binding.js";
import { throwUnlessDone, throwUnlessOk } from "../native/status.js";
import type { DeviceTensor } from "../tensor/device.js";
import { streamHandle } from "../tensor/device.js";
import { type DeviceUse, leaseOnDevice } from "../tensor/device-lease.js";
import type { Stream } from "../tensor/stream.js";
import { type Call, checkFlags, checkOut, type DeviceCall, readCall } from "./call.js";
import { invalid } from "./check.js";

/** DeviceMode of csrc/napi/device_call.h: how a call ends. */
export const MODE_WAIT = 0;
export const MODE_QUEUE = 1;
export const MODE_ENQUEUE = 2;

/** Stream and results, which every op on a device has. */
export interface DeviceTarget {
  readonly stream: Stream | undefined;
  readonly handle: DeviceHandle | undefined;
  /** The results stay on the device. */
  readonly keeps: boolean;
}

/** Checks where results go and on which stream; throws the signal's reason when it is aborted already. */
export function checkPlace(call: Pick<Call | DeviceCall, "stream" | "results" | "signal">, home: DeviceTensor) {
  const { stream, results, signal } = call;
  if (results !== undefined && results !== "host" && results !== "device") {
    throw invalid('"host" or "device"', "results", results);
  }
  checkSignal(signal);
  signal?.throwIfAborted();
  const place: DeviceTarget = { stream, handle: streamHandle(stream, home.device), keeps: results === "device" };
  return place;
}

/** The call as it was read; types and lengths of what is not a tensor checked. */
export function checkDeviceCall(given: Call | DeviceCall, tokens: number): Call | DeviceCall {
  const call = readCall(given as Call) as Call | DeviceCall;
  checkFlags(call);
  if (call.results !== "device" && call.out !== undefined) checkOut((call as Call).out ?? {}, tokens);
  return call;
}

/**
 * Makes the native call, which enqueues, and waits for its end with the tensors leased. A device cannot be stopped: an
 * aborted call rejects when its work is over, so that its memory is never in use after that, and with the signal's reason,
 * whatever the work found.
 */
export async function runOnDevice(
  start: () => number | Promise<Outcome>,
  use: DeviceUse,
  stream: Stream | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const release = leaseOnDevice(use, stream);
  try {
    const started = start();
    if (typeof started === "number") throwUnlessOk(started); // its words are the next call's to overwrite
    const outcome = await started;
    signal?.throwIfAborted();
    throwUnlessDone(outcome);
  } finally {
    release();
  }
}
