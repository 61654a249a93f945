/**
 * Many calls and samples wait under one signal, that of a run. One listener for each signal, not for each of them: Node warns
 * of a leak at eleven, and removing one from a list of thousands takes time linear in it.
 */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `callback` once when `signal` aborts, unless the returned function was called first. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let callbacks = waiting.get(signal);
  if (callbacks === undefined) {
    const all = new Set<() => void>();
    callbacks = all;
    waiting.set(signal, all);
    const run = () => {
      for (const one of [...all]) if (all.delete(one)) one();
    };
    signal.addEventListener("abort", run, { once: true });
  }
  const registered = callbacks;
  registered.add(callback);
  return () => registered.delete(callback);
}
