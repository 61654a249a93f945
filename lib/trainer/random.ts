/**
 * Random numbers without state: every draw is a function of the run's seed and of what it is for, so that a resumed run
 * needs no generator to be restored.
 */

/** 53 bits from a seed and the names and numbers of a purpose (cyrb53's mixing). */
export function hashSeed(...parts: readonly (string | number)[]): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (const char of parts.join("\u0000")) {
    const code = char.codePointAt(0)!;
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return 4294967296 * (2097151 & b) + (a >>> 0);
}

/** A stream of numbers in [0, 1) (mulberry32). */
export function randomStream(seed: number): () => number {
  let state = (seed ^ Math.floor(seed / 4294967296)) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** 0 ... n-1 in random order (Fisher-Yates). */
export function permutation(n: number, seed: number): Int32Array<ArrayBuffer> {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  const next = randomStream(seed);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order;
}

/** Endless passes over n items; `at(k)` is the k-th item asked for since the run began. */
export function endlessOrder(n: number, seed: number, shuffle: boolean): { at(k: number): number } {
  let pass = -1;
  let order = new Int32Array(0);
  return {
    at(k) {
      if (!shuffle) return k % n;
      const wanted = Math.floor(k / n);
      if (wanted !== pass) {
        order = permutation(n, hashSeed(seed, "order", wanted));
        pass = wanted;
      }
      return order[k % n]!;
    },
  };
}
