import { randomStream } from "./random.js";

interface Interval {
  readonly low: number;
  readonly high: number;
}

const Z95 = 1.959963984540054;

/** 95 % interval of a share of successes (Wilson, 1927): right also near 0 and 1, where it matters. */
export function wilson(successes: number, n: number): Interval {
  if (n === 0) return { low: 0, high: 1 };
  const p = successes / n;
  const z2 = (Z95 * Z95) / n;
  const centre = (p + z2 / 2) / (1 + z2);
  const half = (Z95 / (1 + z2)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** Unbiased pass@k of one problem with c right of n samples (Chen et al., 2021): 1 - C(n - c, k) / C(n, k). */
export function passAtK(n: number, c: number, k: number): number {
  if (n - c < k) return 1;
  let none = 1;
  for (let i = n - c + 1; i <= n; i++) none *= 1 - k / i;
  return 1 - none;
}

/** 95 % percentile bootstrap of a mean: problems are drawn again, 1000 times, from a stream that `seed` fixes. */
export function bootstrapMean(values: readonly number[], seed: number): Interval {
  const next = randomStream(seed);
  const n = values.length;
  const means = Float64Array.from({ length: 1000 }, () => {
    let total = 0;
    for (let i = 0; i < n; i++) total += values[Math.floor(next() * n)]!;
    return total / n;
  }).sort();
  return { low: means[25]!, high: means[974]! };
}

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** NaN of no values. */
export const mean = (values: readonly number[]): number => sum(values) / values.length;

/** Least and largest. Not Math.min(...): there may be more values than a call has arguments. */
export function extremes(values: readonly number[]): { min: number; max: number } {
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  return { min, max };
}
