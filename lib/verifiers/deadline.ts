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
