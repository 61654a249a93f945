/**
 * A number and its derivative with respect to one variable, so that the formulas of a token are written once and
 * differentiate themselves. At ties and bounds the derivative is the one that PyTorch's autograd takes.
 */
export interface Dual {
  readonly value: number;
  readonly slope: number;
}

export const variable = (value: number): Dual => ({ value, slope: 1 });
export const constant = (value: number): Dual => ({ value, slope: 0 });
export const scale = (factor: number, x: Dual): Dual => ({ value: factor * x.value, slope: factor * x.slope });
export const add = (a: Dual, b: Dual): Dual => ({ value: a.value + b.value, slope: a.slope + b.slope });
export const multiply = (a: Dual, b: Dual): Dual => ({
  value: a.value * b.value,
  slope: a.slope * b.value + a.value * b.slope,
});

export function exp(x: Dual): Dual {
  const value = Math.exp(x.value);
  return { value, slope: value * x.slope };
}

/** 1 / (1 + e^-x), written so that neither branch overflows. */
export function sigmoid(x: Dual): Dual {
  const small = Math.exp(-Math.abs(x.value));
  const value = x.value >= 0 ? 1 / (1 + small) : small / (1 + small);
  return { value, slope: (small / (1 + small) ** 2) * x.slope };
}

/** |x|, with derivative 0 at 0. */
export const abs = (x: Dual): Dual => scale(Math.sign(x.value), x);

/** min(max(x, low), high). The derivative passes at the bounds themselves and is 0 beyond them. */
export function clamp(x: Dual, low: number, high: number): Dual {
  if (x.value < low) return constant(low);
  return x.value > high ? constant(high) : x;
}

/** The smaller one; on a tie the mean of both derivatives. */
export function min(a: Dual, b: Dual): Dual {
  if (a.value === b.value) return { value: a.value, slope: (a.slope + b.slope) / 2 };
  return a.value < b.value ? a : b;
}

/** The larger one; on a tie the mean of both derivatives. */
export const max = (a: Dual, b: Dual): Dual => scale(-1, min(scale(-1, a), scale(-1, b)));
