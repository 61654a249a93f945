import type { Expr } from "./ast.js";
import { exact } from "./evaluate.js";

type Matrix = Expr & { readonly k: "matrix" };
const MAX_SIZE = 12;

function times(a: Matrix, b: Matrix): Matrix | undefined {
  if (a.rows[0]!.length !== b.rows.length || Math.max(a.rows.length, b.rows.length, b.rows[0]!.length) > MAX_SIZE)
    return undefined;
  const cell = (row: readonly Expr[], j: number): Expr => ({
    k: "add",
    args: row.map((x, i): Expr => ({ k: "mul", args: [x, b.rows[i]![j]!] })),
  });
  return { k: "matrix", rows: a.rows.map((row) => b.rows[0]!.map((_, j) => cell(row, j))) };
}

function plus(a: Matrix, b: Matrix): Matrix | undefined {
  if (a.rows.length !== b.rows.length || a.rows[0]!.length !== b.rows[0]!.length) return undefined;
  return {
    k: "matrix",
    rows: a.rows.map((row, i) => row.map((x, j): Expr => ({ k: "add", args: [x, b.rows[i]![j]!] }))),
  };
}

const scaled = (s: Expr, m: Matrix): Matrix => ({
  k: "matrix",
  rows: m.rows.map((row) => row.map((x): Expr => ({ k: "mul", args: [s, x] }))),
});

/** A matrix from sums, products, multiples and integer powers of matrices; undefined where the sizes do not fit. */
export function matrixOf(e: Expr): Matrix | undefined {
  if (e.k === "matrix") return e;
  if (e.k === "add") {
    const all = e.args.map(matrixOf);
    return all.reduce((sum, m) => sum && m && plus(sum, m));
  }
  if (e.k === "mul") {
    let [matrix, scalar]: [Matrix | undefined, Expr | undefined] = [undefined, undefined];
    for (const arg of e.args) {
      const m = matrixOf(arg);
      if (m === undefined) scalar = scalar === undefined ? arg : { k: "mul", args: [scalar, arg] };
      else if (matrix === undefined) matrix = m;
      else {
        matrix = times(matrix, m);
        if (matrix === undefined) return undefined;
      }
    }
    return matrix && (scalar === undefined ? matrix : scaled(scalar, matrix));
  }
  if (e.k === "div") {
    const m = matrixOf(e.a);
    return m && scaled({ k: "div", a: { k: "num", n: 1n, d: 1n, decimal: false }, b: e.b }, m);
  }
  if (e.k === "pow") {
    const [m, exponent] = [matrixOf(e.a), exact(e.b)];
    if (m === undefined || exponent?.d !== 1n || exponent.n < 1n || exponent.n > 6n) return undefined;
    let result: Matrix | undefined = m;
    for (let i = 1n; i < exponent.n && result !== undefined; i++) result = times(result, m);
    return result;
  }
  return undefined;
}
