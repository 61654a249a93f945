import { types } from "node:util";
import { markAsUntransferable } from "node:worker_threads";
import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { isResizable } from "../typed-array.js";

interface Movable {
  transfer?: () => ArrayBuffer;
}

/** True when `transfer()` takes the memory of a buffer even though it was marked untransferable. */
function transferIgnoresTheMark(): boolean {
  const probe = new ArrayBuffer(1) as ArrayBuffer & Movable;
  if (typeof probe.transfer !== "function") return false;
  markAsUntransferable(probe);
  try {
    probe.transfer();
    return true;
  } catch {
    return false;
  }
}

const markIsIgnored = transferIgnoresTheMark();

/** Bytes from which memory is worth huge pages: two of them. */
const LARGE = 4 * 2 ** 20;

/** Bytes of one view in which memory is advised: a Uint8Array of Node 20 has at most 4 GiB. */
const PIECE = 2 ** 30;

/** Zeroed memory that nobody can take away from a running call. */
export function newMemory(bytes: number): ArrayBufferLike {
  const memory = markIsIgnored ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes);
  if (bytes < LARGE) return memory;
  for (let at = 0; at < bytes; at += PIECE) {
    native.adviseHugePages(new Uint8Array(memory, at, Math.min(PIECE, bytes - at)));
  }
  return memory;
}

/** What `make` makes, of so many bytes, or ERR_RLSD_OUT_OF_MEMORY with `mend`, a sentence on what to do. */
export function orOutOfMemory<T>(make: () => T, what: string, bytes: number, mend: string): T {
  try {
    return make();
  } catch (error) {
    const { name, message: why } = error as Error;
    if (name !== "RangeError") throw error; // an engine's word for memory that it has not, or cannot address
    const message = `There is no room for ${what}, ${(bytes / 2 ** 30).toFixed(1)} GiB (${why}). ${mend}`;
    throw new RlsdError("ERR_RLSD_OUT_OF_MEMORY", message, { cause: error });
  }
}

/**
 * Fixes a buffer in its place: it can be neither resized nor transferred any more, so that a call on another thread
 * may use it. Throws ERR_RLSD_INVALID_ARGUMENT for a resizable buffer.
 */
export function fixMemory(buffer: ArrayBufferLike): void {
  if (isResizable(buffer)) {
    throw new RlsdError(
      "ERR_RLSD_INVALID_ARGUMENT",
      "Expected a buffer of fixed size for a tensor but received a resizable one. Copy it with data.slice().",
    );
  }
  if (types.isArrayBuffer(buffer)) markAsUntransferable(buffer);
}

/** Throws ERR_RLSD_UNSUPPORTED where this runtime lets a caller take the buffer away during a queued call. */
export function requireFixed(buffer: ArrayBufferLike): void {
  if (!markIsIgnored || types.isSharedArrayBuffer(buffer)) return;
  throw new RlsdError(
    "ERR_RLSD_UNSUPPORTED",
    `Node ${process.versions.node} cannot protect this tensor's memory from ArrayBuffer.prototype.transfer during a ` +
      "queued call. Make the tensor with empty(), give it a SharedArrayBuffer, or use the synchronous call.",
  );
}
