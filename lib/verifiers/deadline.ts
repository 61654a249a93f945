import { onAbort } from "../on-abort.js";

/**
 * A signal that aborts with `signal` or after `ms`. Dispose of it: AbortSignal.any on a signal that lives as long as a run
 * keeps every derived signal alive in Node 20, one for each sample.
 */
export function deadline(
  signal: AbortSignal,
  ms: number,
): { readonly signal: AbortSignal; late(): boolean } & Disposable {
  const controller = new AbortController();
  let expired = false;
  const abort = () => controller.abort(signal.reason);
  const timer = setTimeout(() => {
    expired = true;
    controller.abort(new DOMException(`No answer within ${ms} ms`, "TimeoutError"));
  }, ms);
  if (signal.aborted) abort();
  const forget = onAbort(signal, abort);
  return {
    signal: controller.signal,
    late: () => expired,
    [Symbol.dispose]() {
      clearTimeout(timer);
      forget();
    },
  };
}

/**
 * A pause that the signal cuts short, by an error that is its reason. Not `node:timers/promises`: each of its timers has a
 * listener of its own on the signal, and Node warns of a leak where eleven samples wait.
 */
export async function pause(signal: AbortSignal, ms: number): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const forget = onAbort(signal, () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
    const timer = setTimeout(() => {
      forget();
      resolve();
    }, ms);
  });
}
