/** Values of expressions: exact fractions where there are any, complex doubles otherwise. */
import { Complex } from "complex.js";
import { type Expr, gcd } from "./ast.js";

interface Fraction {
  readonly n: bigint;
  readonly d: bigint;
}

/** Bits of the largest exact number; beyond it the double is used. 2006! has 19,000. */
const MAX_BITS = 100_000;
const MAX_TERMS = 2000;

const bits = (x: bigint) => x.toString(16).length * 4;

function reduce(n: bigint, d: bigint): Fraction | undefined {
  if (d === 0n || bits(n) > MAX_BITS || bits(d) > MAX_BITS) return undefined;
  const g = gcd(n, d);
  const sign = d < 0n ? -1n : 1n;
  return g === 0n ? { n: 0n, d: 1n } : { n: (sign * n) / g, d: (sign * d) / g };
}

const add = (a: Fraction, b: Fraction) => reduce(a.n * b.d + b.n * a.d, a.d * b.d);
const mul = (a: Fraction, b: Fraction) => reduce(a.n * b.n, a.d * b.d);

/** Floor of the k-th root, by Newton's method. */
function integerRoot(x: bigint, k: bigint): bigint {
  if (x < 2n) return x;
  let r = 1n << BigInt(Math.ceil(bits(x) / Number(k)) + 1);
  for (;;) {
    const next = ((k - 1n) * r + x / r ** (k - 1n)) / k;
    if (next >= r) return r;
    r = next;
  }
}

function root(x: bigint, k: bigint): bigint | undefined {
  if (k < 1n || k > 64n || x < 0n) return undefined;
  const r = integerRoot(x, k);
  return r ** k === x ? r : undefined;
}

function power(a: Fraction, b: Fraction): Fraction | undefined {
  if (a.n === 0n) return b.n > 0n ? { n: 0n, d: 1n } : undefined;
  const top = root(a.n, b.d);
  const bottom = root(a.d, b.d);
  const base = b.d === 1n ? a : top !== undefined && bottom !== undefined ? { n: top, d: bottom } : undefined;
  const e = b.n < 0n ? -b.n : b.n;
  if (base === undefined || e * BigInt(Math.max(bits(base.n), bits(base.d))) > MAX_BITS) return undefined;
  return b.n < 0n ? reduce(base.d ** e, base.n ** e) : reduce(base.n ** e, base.d ** e);
}

function factorial(n: bigint): bigint | undefined {
  if (n < 0n || n > 5000n) return undefined;
  let product = 1n;
  for (let i = 2n; i <= n; i++) product *= i;
  return product;
}

function binomial(n: bigint, k: bigint): bigint | undefined {
  if (k < 0n || n < k || n > 5000n) return undefined;
  let value = 1n;
  for (let i = 1n; i <= k; i++) value = (value * (n - k + i)) / i;
  return value;
}

const floorOf = ({ n, d }: Fraction) => (n >= 0n ? n / d : -((-n + d - 1n) / d));

function exactCall(name: string, args: readonly Fraction[]): Fraction | undefined {
  const [x, y] = args;
  if (x === undefined) return undefined;
  const whole = (v: bigint | undefined) => (v === undefined ? undefined : { n: v, d: 1n });
  const integers = args.every(({ d }) => d === 1n);
  if (name === "abs") return x.n < 0n ? { n: -x.n, d: x.d } : x;
  if (name === "floor") return whole(floorOf(x));
  if (name === "ceil") return whole(-floorOf({ n: -x.n, d: x.d }));
  if (name === "factorial" && integers) return whole(factorial(x.n));
  if (name === "binom" && integers && y !== undefined) return whole(binomial(x.n, y.n));
  if (name === "gcd" && integers) return whole(args.map(({ n }) => n).reduce(gcd));
  if (name === "lcm" && integers) return whole(args.map(({ n }) => n).reduce((a, b) => (a * b) / (gcd(a, b) || 1n)));
  if (name !== "max" && name !== "min") return undefined;
  const above = (a: Fraction, b: Fraction) => a.n * b.d > b.n * a.d === (name === "max");
  return args.reduce((best, one) => (above(one, best) ? one : best));
}

/** The integer that digits of a base name, or undefined where a digit is too large. */
function based(digits: string, base: number): bigint | undefined {
  let value = 0n;
  for (const digit of digits.replace("-", "")) {
    const d = Number.parseInt(digit, 36);
    if (!(d < base)) return undefined;
    value = value * BigInt(base) + BigInt(d);
  }
  return digits.startsWith("-") ? -value : value;
}

/** The exact value of an expression without symbols, surds and transcendental functions. */
export function exact(e: Expr, bound: ReadonlyMap<string, Fraction> = new Map()): Fraction | undefined {
  const fold = (args: readonly Expr[], op: typeof add, unit: Fraction) =>
    args.reduce<Fraction | undefined>((sum, arg) => {
      const value = sum && exact(arg, bound);
      return sum && value && op(sum, value);
    }, unit);
  switch (e.k) {
    case "num":
      return { n: e.n, d: e.d };
    case "sym":
      return bound.get(e.name);
    case "add":
      return fold(e.args, add, { n: 0n, d: 1n });
    case "mul":
      return fold(e.args, mul, { n: 1n, d: 1n });
    case "div":
    case "pow": {
      const [a, b] = [exact(e.a, bound), exact(e.b, bound)];
      if (a === undefined || b === undefined) return undefined;
      return e.k === "pow" ? power(a, b) : reduce(a.n * b.d, a.d * b.n);
    }
    case "percent": {
      const a = exact(e.a, bound);
      return a && reduce(a.n, a.d * 100n);
    }
    case "based": {
      const value = based(e.digits, e.base);
      return value === undefined ? undefined : { n: value, d: 1n };
    }
    case "call": {
      const args = e.args.map((arg) => exact(arg, bound));
      return args.every((arg) => arg !== undefined) ? exactCall(e.name, args) : undefined;
    }
    case "sum":
    case "prod": {
      const [from, to] = [exact(e.from, bound), exact(e.to, bound)];
      if (from?.d !== 1n || to?.d !== 1n || to.n - from.n > MAX_TERMS) return undefined;
      let total: Fraction | undefined = e.k === "sum" ? { n: 0n, d: 1n } : { n: 1n, d: 1n };
      for (let i = from.n; i <= to.n && total !== undefined; i++) {
        const value = exact(e.body, new Map([...bound, [e.variable, { n: i, d: 1n }]]));
        total = value && (e.k === "sum" ? add(total, value) : mul(total, value));
      }
      return total;
    }
    default:
      return undefined;
  }
}

/** A fraction as a double, for any size of its parts. */
export function toNumber({ n, d }: Fraction): number {
  const direct = Number(n) / Number(d);
  if (Number.isFinite(direct) && direct !== 0) return direct;
  if (n === 0n) return 0;
  const shift = BigInt(bits(d) - bits(n) + 64);
  const scaled = shift >= 0n ? (n << shift) / d : n / (d << -shift);
  return Number(scaled) * 2 ** -Number(shift);
}

export type Env = ReadonlyMap<string, Complex>;

const NOT_A_NUMBER = new Complex(Number.NaN, 0);
const real = (x: number) => new Complex(x, 0);

/**
 * An unknown function: some fixed value in [0.5, 2) for each name and arguments, so that f(x + 1) and f(1 + x) agree and
 * f(x) and f(y) do not. Arguments are rounded so that the last bits do not matter.
 */
function unknown(name: string, args: readonly Complex[]): Complex {
  const key = `${name}|${args.map(({ re, im }) => `${Math.round(re * 1e6)},${Math.round(im * 1e6)}`).join("|")}`;
  let h = 2166136261;
  for (let i = 0; i < key.length; i++) h = Math.imul(h ^ key.charCodeAt(i), 16777619);
  h = Math.imul(h ^ (h >>> 15), 2246822519);
  return real(0.5 + (((h ^ (h >>> 13)) >>> 0) / 2 ** 32) * 1.5);
}

const UNARY: Readonly<Record<string, (z: Complex) => Complex>> = {
  sin: (z) => z.sin(),
  cos: (z) => z.cos(),
  tan: (z) => z.tan(),
  cot: (z) => z.cot(),
  sec: (z) => z.sec(),
  csc: (z) => z.csc(),
  arcsin: (z) => z.asin(),
  arccos: (z) => z.acos(),
  arctan: (z) => z.atan(),
  arccot: (z) => z.acot(),
  sinh: (z) => z.sinh(),
  cosh: (z) => z.cosh(),
  tanh: (z) => z.tanh(),
  ln: (z) => z.log(),
  lg: (z) => z.log().div(Math.LN10),
  exp: (z) => z.exp(),
  abs: (z) => real(z.abs()),
};

function callComplex(name: string, args: readonly Complex[]): Complex {
  const [x, y] = args;
  if (x === undefined) return NOT_A_NUMBER;
  if (name === "log") return y === undefined ? x.log() : x.log().div(y.log());
  const unary = Object.hasOwn(UNARY, name) ? UNARY[name] : undefined;
  if (unary !== undefined) return args.length === 1 ? unary(x) : NOT_A_NUMBER;
  const isReal = args.every(({ im }) => Math.abs(im) < 1e-12);
  if (name === "max" || name === "min") return isReal ? real(Math[name](...args.map(({ re }) => re))) : NOT_A_NUMBER;
  if (name === "floor" || name === "ceil") return isReal ? real(Math[name](x.re)) : NOT_A_NUMBER;
  if (name === "factorial") return isReal ? real(gamma(x.re + 1)) : NOT_A_NUMBER;
  if (name === "binom") {
    return isReal && y !== undefined ? real(gamma(x.re + 1) / gamma(y.re + 1) / gamma(x.re - y.re + 1)) : NOT_A_NUMBER;
  }
  return unknown(name, args);
}

/** Gamma function, Lanczos approximation (g = 7, 9 coefficients): relative error below 1e-14 for x > 0. */
function gamma(x: number): number {
  if (x < 0.5) return Math.PI / (Math.sin(Math.PI * x) * gamma(1 - x));
  const c = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
  ];
  const t = x + 6.5;
  const series = c.reduce((sum, value, i) => (i === 0 ? value : sum + value / (x - 1 + i)), 0);
  return Math.sqrt(2 * Math.PI) * t ** (x - 0.5) * Math.exp(-t) * series;
}

function repeated(e: Expr & { k: "sum" | "prod" }, env: Env): Complex {
  const [from, to] = [evaluate(e.from, env), evaluate(e.to, env)];
  const whole = (z: Complex) => Math.abs(z.im) < 1e-9 && Math.abs(z.re - Math.round(z.re)) < 1e-9;
  if (!whole(from) || !whole(to) || to.re - from.re > MAX_TERMS) return NOT_A_NUMBER;
  let total = real(e.k === "sum" ? 0 : 1);
  for (let i = Math.round(from.re); i <= Math.round(to.re); i++) {
    const value = evaluate(e.body, new Map([...env, [e.variable, real(i)]]));
    total = e.k === "sum" ? total.add(value) : total.mul(value);
  }
  return total;
}

function constant(name: "pi" | "e" | "i" | "inf"): Complex {
  if (name === "i") return new Complex(0, 1);
  return real(name === "pi" ? Math.PI : name === "e" ? Math.E : Number.POSITIVE_INFINITY);
}

/** Thrown where an expression has no finite value: a division by zero must not come back as the zero of 1/infinity. */
class Undefined extends Error {}

/** The value at `env`, principal branches throughout; throws `Undefined` where any part has none. */
function evaluate(e: Expr, env: Env): Complex {
  const z = evaluateNode(e, env);
  if (!Number.isFinite(z.re) || !Number.isFinite(z.im)) throw new Undefined();
  return z;
}

/** The value at `env`, or undefined where there is no finite one. */
export function valueAt(e: Expr, env: Env): Complex | undefined {
  try {
    return evaluate(e, env);
  } catch (error) {
    if (error instanceof Undefined) return undefined;
    throw error;
  }
}

function evaluateNode(e: Expr, env: Env): Complex {
  switch (e.k) {
    case "num":
      return real(toNumber(e));
    case "sym":
      return env.get(e.name) ?? NOT_A_NUMBER;
    case "const":
      return constant(e.name);
    case "add":
      return e.args.reduce((sum, arg) => sum.add(evaluate(arg, env)), real(0));
    case "mul":
      return e.args.reduce((value, arg) => value.mul(evaluate(arg, env)), real(1));
    case "div":
      return evaluate(e.a, env).div(evaluate(e.b, env));
    case "pow":
      return evaluate(e.a, env).pow(evaluate(e.b, env));
    case "percent":
      return evaluate(e.a, env).div(100);
    case "unit":
      return e.unit === "degree" ? evaluate(e.a, env).mul(Math.PI / 180) : evaluate(e.a, env);
    case "based": {
      const value = based(e.digits, e.base);
      return value === undefined ? NOT_A_NUMBER : real(Number(value));
    }
    case "call":
      return callComplex(
        e.name,
        e.args.map((arg) => evaluate(arg, env)),
      );
    case "sum":
    case "prod":
      return repeated(e, env);
    case "ratio":
      return e.items.length === 2 ? evaluate(e.items[0]!, env).div(evaluate(e.items[1]!, env)) : NOT_A_NUMBER;
    default:
      return NOT_A_NUMBER;
  }
}
