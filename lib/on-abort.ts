/**
 * Many calls and samples wait under one signal, that of a run. One listener for each signal, not for each of them: Node warns
 * of a leak at eleven, and removing one from a list of thousands takes time linear in it. It goes with the last of them.
 */
const waiting = new WeakMap<AbortSignal, Waiting>();

class Waiting {
  readonly #signal: AbortSignal;
  readonly #callbacks = new Set<() => void>();
  readonly #run = () => {
    for (const callback of [...this.#callbacks]) if (this.#callbacks.delete(callback)) callback();
  };

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", this.#run, { once: true });
    waiting.set(signal, this);
  }

  add(callback: () => void): void {
    this.#callbacks.add(callback);
  }

  forget(callback: () => void): void {
    if (!this.#callbacks.delete(callback) || this.#callbacks.size > 0) return;
    this.#signal.removeEventListener("abort", this.#run);
    if (waiting.get(this.#signal) === this) waiting.delete(this.#signal);
  }
}

/** Calls `callback` once when `signal` aborts, unless the returned function was called first. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  const one = waiting.get(signal) ?? new Waiting(signal);
  one.add(callback);
  return () => one.forget(callback);
}
