/**
 * Whether two scalar expressions are equal: exactly where both are fractions, otherwise by values at fixed points, which can
 * refute, and by the algebra library, which can prove. What neither settles is undecided.
 */
import { Complex } from "complex.js";
import { canonical, type Expr, some, symbols } from "./ast.js";
import { type Env, exact, toNumber, valueAt } from "./evaluate.js";
import { provenEqual } from "./symbolic.js";

/** true, false, or null: undecided. */
export type Decision = boolean | null;

export interface Tolerance {
  /** Digits after the point to which an answer written as a decimal must agree. */
  readonly decimals: number;
}

/** Relative error up to which two doubles of one number may differ, and from which on they are different numbers. */
const SAME = 1e-10;
const DIFFERENT = 1e-7;
const POINTS = 12;
/** Fewer evaluable points than this prove nothing. */
const ENOUGH_POINTS = 6;

const isDecimal = (e: Expr) => some(e, (part) => part.k === "num" && part.decimal);

/** Agreement of a decimal with a value: to `decimals` places, and for small numbers to as many significant digits. */
function closeDecimal(a: number, b: number, { decimals }: Tolerance): boolean {
  const error = Math.abs(a - b);
  const scale = Math.min(1, 4 * Math.max(Math.abs(a), Math.abs(b)));
  return error <= 0.5 * 10 ** -decimals * scale * (1 + 1e-9) || error <= 1e-14 * Math.abs(a);
}

function relativeError(a: Complex, b: Complex): number {
  const error = Math.hypot(a.re - b.re, a.im - b.im);
  return error === 0 ? 0 : error / Math.max(a.abs(), b.abs(), 1e-3);
}

/** Fixed pseudo-random numbers in [0, 1): verdicts must not change from run to run. */
function* uniform(): Generator<number> {
  let state = 0x9e3779b9;
  for (;;) {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    yield ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
}

/** Points for the symbols: positive ones first, then ones of either sign; symbols in bounds of sums get small integers. */
function points(names: readonly string[], integers: ReadonlySet<string>): Env[] {
  const random = uniform();
  return Array.from({ length: POINTS }, (_, i) => {
    const value = (name: string) => {
      const u = random.next().value as number;
      if (integers.has(name)) return 2 + Math.floor(u * 6);
      return i < POINTS / 2 ? 0.3 + 2.4 * u : (u < 0.5 ? -1 : 1) * (0.3 + 2.4 * ((2 * u) % 1));
    };
    return new Map(names.map((name) => [name, new Complex(value(name), 0)]));
  });
}

/** Symbols that occur in the bounds of a sum or product, which must be integers. */
function boundSymbols(e: Expr, into = new Set<string>()): Set<string> {
  some(e, (part) => {
    if (part.k === "sum" || part.k === "prod") for (const end of [part.from, part.to]) symbols(end, into);
    if (part.k === "call" && part.name === "factorial") symbols(part, into);
    return false;
  });
  return into;
}

function constants(a: Expr, b: Expr, tolerance: Tolerance): Decision | undefined {
  const [x, y] = [exact(a), exact(b)];
  const decimal = isDecimal(a) || isDecimal(b);
  if (x !== undefined && y !== undefined) {
    if (x.n === y.n && x.d === y.d) return true;
    return decimal && closeDecimal(toNumber(x), toNumber(y), tolerance);
  }
  const [u, v] = [valueAt(a, new Map()), valueAt(b, new Map())];
  if (u === undefined || v === undefined) return undefined;
  if (decimal) return closeDecimal(u.re, v.re, tolerance) && Math.abs(u.im - v.im) <= 0.5 * 10 ** -tolerance.decimals;
  const error = relativeError(u, v);
  return error <= SAME ? true : error >= DIFFERENT ? false : undefined;
}

/** How the values compare at the points: refuted, agreeing at enough of them, or neither. */
function spotCheck(a: Expr, b: Expr, tolerance: Tolerance): Decision {
  const names = [...new Set([...symbols(a), ...symbols(b)])].sort();
  const integers = boundSymbols(b, boundSymbols(a));
  const decimal = isDecimal(a) || isDecimal(b);
  const same = decimal ? 2 * 10 ** -tolerance.decimals : SAME;
  let agreed = 0;
  for (const point of points(names, integers)) {
    const [u, v] = [valueAt(a, point), valueAt(b, point)];
    if (u === undefined || v === undefined) continue;
    const error = relativeError(u, v);
    if (error <= same) agreed++;
    else if (error >= Math.max(DIFFERENT, same)) return false;
  }
  return agreed >= ENOUGH_POINTS ? true : null;
}

/** Whether a = b, and what decided it. */
export async function scalarsEqual(
  a: Expr,
  b: Expr,
  tolerance: Tolerance,
): Promise<{ readonly equal: Decision; readonly by: "form" | "value" | "algebra" | "points" }> {
  if (canonical(a) === canonical(b)) return { equal: true, by: "form" };
  if (symbols(a).size === 0 && symbols(b).size === 0) {
    const equal = constants(a, b, tolerance);
    if (equal !== undefined) return { equal, by: "value" };
    return { equal: (await provenEqual(a, b)) ?? null, by: "algebra" };
  }
  const checked = spotCheck(a, b, tolerance);
  if (checked === false) return { equal: false, by: "points" };
  if (await provenEqual(a, b)) return { equal: true, by: "algebra" };
  return { equal: checked, by: "points" };
}

/**
 * The constant c with a = c b at all points: two equations a = 0 and b = 0 are one when there is one, two inequalities when it
 * is positive. Null where a and b cannot be evaluated at enough points, 0 where there is no such constant.
 */
export function proportion(a: Expr, b: Expr): number | null {
  const names = [...new Set([...symbols(a), ...symbols(b)])].sort();
  let ratio: Complex | undefined;
  let agreed = 0;
  for (const point of points(names, boundSymbols(b, boundSymbols(a)))) {
    const [u, v] = [valueAt(a, point), valueAt(b, point)];
    if (u === undefined || v === undefined) continue;
    if (v.abs() < 1e-9 || u.abs() < 1e-9) {
      if (v.abs() < 1e-9 && u.abs() < 1e-9) continue;
      return 0;
    }
    const here = u.div(v);
    ratio ??= here;
    if (relativeError(here, ratio) > 1e-8 || Math.abs(here.im) > 1e-9 * Math.max(1, Math.abs(here.re))) return 0;
    agreed++;
  }
  return agreed >= ENOUGH_POINTS && ratio !== undefined ? ratio.re : null;
}
