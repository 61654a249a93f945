/** Disposes each, whatever another throws; the first error is thrown when all are done. */
export function disposeAll(all: Iterable<Disposable>): void {
  const errors: unknown[] = [];
  for (const one of all) {
    try {
      one[Symbol.dispose]();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** Cleans up after `error` and throws it again: what cleaning up throws would hide why. */
export function disposeAfter(error: unknown, ...all: readonly (Disposable | undefined)[]): never {
  try {
    disposeAll(all.filter((one) => one !== undefined));
  } catch {
    // The error that is thrown came first.
  }
  throw error;
}
