/** NaN of no values. */
export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Short enough for a label: 0.0123, 12.3, 1234, 1.2e-7. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace(/\.0e/, "e").replace("e+", "e");
  if (size >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)}%`;

export const signed = (value: number, digits = 2): string =>
  `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(digits)}`;

/** A metric where it is a number. */
export function numberIn(line: Readonly<Record<string, unknown>>, name: string): number | undefined {
  const value = line[name];
  return typeof value === "number" ? value : undefined;
}

/** The steps of an axis: multiples of 1, 2 or 5 times a power of ten that cover [low, high] with about `count` gaps. */
export function ticks(low: number, high: number, count: number): number[] {
  const size = Math.max(Math.abs(low), Math.abs(high));
  // Values that only rounding sets apart are one: their gaps would be too small for the ticks' decimals.
  const span = high - low > 1e-9 * size ? high - low : size || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9))! * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  // Through the decimal form: 3 * 0.1 is not 0.3.
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
