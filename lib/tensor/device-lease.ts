import { RlsdError } from "../errors.js";
import type { DeviceTensor } from "./device.js";
import type { Stream } from "./stream.js";

/** What a call on a device reads and writes. What it reads and writes itself counts as written. */
export interface DeviceUse {
  readonly reads: readonly DeviceTensor[];
  readonly writes: readonly DeviceTensor[];
}

/** Work of one stream (undefined: the device's default) is in order; "none": with no stream's, as a queued copy's. */
type Order = Stream | undefined | "none";

interface Held {
  readonly device: string;
  readonly begin: bigint;
  readonly end: bigint;
  /** Streams whose further work comes after this use. */
  readonly before: Set<Order>;
}

/** What calls that have not ended use. */
const held = new Set<Held>();

function rangeOf(t: DeviceTensor): { begin: bigint; end: bigint } {
  const begin = t.pointer;
  return { begin, end: begin + BigInt(t.byteLength) };
}

/** Whether the two share memory. */
export function shareMemory(a: DeviceTensor, b: DeviceTensor): boolean {
  if (a.device !== b.device) return false;
  const x = rangeOf(a);
  const y = rangeOf(b);
  return x.begin < y.end && y.begin < x.end;
}

/**
 * Throws ERR_RLSD_BUSY when a call that has not ended uses, on another stream, what this one would write. Reading waits
 * for earlier writes by itself: the native call is ordered after them.
 */
export function checkFreeOnDevice({ writes }: DeviceUse, order: Order): void {
  for (const t of writes) {
    const { begin, end } = rangeOf(t);
    for (const use of held) {
      if (use.device !== t.device || use.begin >= end || begin >= use.end || use.before.has(order)) continue;
      throw new RlsdError(
        "ERR_RLSD_BUSY",
        "A call that has not ended uses this tensor, which this call would write. Await the other call first, or put " +
          "both on one stream.",
      );
    }
  }
}

/** Reserves memory for a call whose end is awaited, or throws as `checkFreeOnDevice`. The returned function ends it. */
export function leaseOnDevice(use: DeviceUse, order: Order): () => void {
  checkFreeOnDevice(use, order);
  const mine = [...use.reads, ...use.writes].map(
    (t): Held => ({ device: t.device, ...rangeOf(t), before: new Set(order === "none" ? [] : [order]) }),
  );
  for (const use of mine) held.add(use);
  return () => {
    for (const use of mine) held.delete(use);
  };
}

/** What comes on `stream` from now on comes after what `other` holds. */
export function orderAfter(stream: Stream, other: Stream): void {
  for (const { before } of held) if (before.has(other)) before.add(stream);
}
