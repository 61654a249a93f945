/** What several timings of one thing say: the median, and the quartiles as its spread. */
export interface Spread {
  readonly lowerQuartile: number;
  readonly median: number;
  readonly upperQuartile: number;
}

/** The q-quantile of sorted values, linear between neighbours (Hyndman and Fan, 1996, type 7). */
function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (at - Math.floor(at)) * (above - below);
}

/** NaN everywhere for no values. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  return {
    lowerQuartile: quantile(sorted, 0.25),
    median: quantile(sorted, 0.5),
    upperQuartile: quantile(sorted, 0.75),
  };
}

/** Distance of the quartiles as a share of the median: how unsteady the machine was. */
export const unsteadiness = ({ lowerQuartile, median, upperQuartile }: Spread): number =>
  (upperQuartile - lowerQuartile) / median;
