import { onAbort } from "../on-abort.js";
import type { Verifier } from "./verifier.js";

/**
 * Has a verifier load what it needs; rejects with the signal's reason as soon as it aborts, also where a `start` knows nothing
 * of signals. The caller disposes of the verifier, whatever came of this.
 */
export async function startVerifier(verifier: Verifier, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  if (signal === undefined) return verifier.start?.();
  let forget = () => {};
  const aborted = new Promise<never>((_, reject) => {
    forget = onAbort(signal, () => reject(signal.reason));
  });
  try {
    await Promise.race([verifier.start?.(signal), aborted]);
  } finally {
    forget();
  }
}
