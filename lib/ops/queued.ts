import type { Outcome } from "../native/binding.js";
import { throwUnlessDone } from "../native/status.js";
import { onAbort } from "../on-abort.js";
import { lease, type MemoryUse } from "../tensor/lease.js";

/** Places of the flags that a queued call shares with native code: csrc/napi/op_call.h. */
const STOP = 0;
const STARTED = 1;

/**
 * Runs a native call on the queue and waits for it: its tensors are leased, its signal is heard.
 *
 * An aborted call that has not started never will, and rejects at once; one that runs rejects when native code has seen
 * the flag, so that its memory is never in use after the promise is settled.
 *
 * @param start makes the native call; given the shared flags when there is a signal
 */
export async function runQueued(
  start: (flags: Int32Array | undefined) => number | Promise<Outcome>,
  use: MemoryUse,
  signal: AbortSignal | undefined,
): Promise<void> {
  const release = lease(use);
  try {
    if (signal === undefined) {
      throwUnlessDone(await start(undefined));
      return;
    }
    const flags = new Int32Array(new SharedArrayBuffer(8));
    let abort = (): void => {};
    const neverStarts = new Promise<never>((_, reject) => {
      abort = () => {
        Atomics.store(flags, STOP, 1);
        if (Atomics.load(flags, STARTED) === 0) reject(signal.reason);
      };
    });
    const forget = onAbort(signal, abort);
    try {
      const outcome = await Promise.race([start(flags), neverStarts]);
      signal.throwIfAborted();
      throwUnlessDone(outcome);
    } finally {
      forget();
    }
  } finally {
    release();
  }
}
