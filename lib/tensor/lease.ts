import { RlsdError } from "../errors.js";
import { bufferOf, bytesOf } from "../typed-array.js";
import { requireFixed } from "./memory.js";

type Memory = Float32Array | Uint16Array;

/** The memory that a call reads and writes. What it reads and writes itself counts as written. */
export interface MemoryUse {
  readonly reads: readonly Memory[];
  readonly writes: readonly Memory[];
}

interface Range {
  readonly begin: number;
  readonly end: number;
  readonly written: boolean;
}

/** What queued calls use, by buffer: two tensors may view one. */
const leased = new WeakMap<ArrayBufferLike, Set<Range>>();

const rangeOf = (memory: Memory, written: boolean): Range => ({ ...bytesOf(memory), written });

function checkFree(memory: Memory, written: boolean): void {
  const wanted = rangeOf(memory, written);
  for (const held of leased.get(bufferOf(memory)) ?? []) {
    if (held.begin >= wanted.end || wanted.begin >= held.end || !(held.written || written)) continue;
    throw new RlsdError(
      "ERR_RLSD_BUSY",
      `A queued call ${held.written ? "writes" : "reads"} this tensor, which this call would ` +
        `${written ? "write" : "read"}. Await the other call first.`,
    );
  }
}

/** Throws ERR_RLSD_BUSY when a queued call writes what this one would read, or uses what it would write. */
export function checkAllFree({ reads, writes }: MemoryUse): void {
  for (const memory of reads) checkFree(memory, false);
  for (const memory of writes) checkFree(memory, true);
}

/** Reserves memory for a queued call, or throws as `checkAllFree`. The returned function, called once or more, ends it. */
export function lease(use: MemoryUse): () => void {
  checkAllFree(use);
  for (const memory of [...use.reads, ...use.writes]) requireFixed(bufferOf(memory));
  const ends: (() => void)[] = [];
  const hold = (memory: Memory, written: boolean): void => {
    const range = rangeOf(memory, written);
    const buffer = bufferOf(memory);
    const ranges = leased.get(buffer) ?? new Set();
    leased.set(buffer, ranges.add(range));
    ends.push(() => ranges.delete(range));
  };
  for (const memory of use.reads) hold(memory, false);
  for (const memory of use.writes) hold(memory, true);
  return () => {
    for (const end of ends) end();
  };
}
