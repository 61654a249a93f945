/** Equations, assignments and inequalities. */
import { type Expr, num, type RelOp, symbols } from "./ast.js";
import { absolute, endOf, intersect, type RealSet, setOf, solutions, union } from "./sets.js";
import { FUNCTIONS } from "./tokens.js";

export type Relation = Expr & { readonly k: "rel" };

export const FLIPPED: Readonly<Record<string, RelOp>> = {
  "<": ">",
  "<=": ">=",
  ">": "<",
  ">=": "<=",
  "=": "=",
  "!=": "!=",
};

/** Something that is given a value: x, x_1, f(x), AB, |AB|, A:B, (p, q), a ratio of lengths. */
function isName(e: Expr): boolean {
  switch (e.k) {
    case "sym":
    case "text":
      return true;
    case "const":
      return e.name === "e" || e.name === "i";
    case "call":
      return e.name === "abs"
        ? e.args.every(isName)
        : !FUNCTIONS.has(e.name) && e.name !== "factorial" && e.name !== "binom";
    case "mul":
      return e.args.every((arg) => isName(arg) && arg.k !== "tuple");
    case "div":
      return isName(e.a) && isName(e.b);
    case "ratio":
    case "tuple":
      return e.items.every(isName);
    default:
      return false;
  }
}

/**
 * An equation chain as what it says in the end: x = 5 + 6 = 11 is x = 11, and 1/3 = x is x = 1/3; approximations behind an
 * exact value are dropped. A chain that starts from a number is its last value.
 */
export function shortened(e: Expr): Expr {
  if (e.k !== "rel" || e.ops.some((op) => op !== "=" && op !== "~")) return e;
  const cut = e.ops.findIndex((op, i) => op === "~" && (i > 0 || !isName(e.terms[0]!)));
  const terms = cut < 0 ? e.terms : e.terms.slice(0, cut + 1);
  const [first, last] = [terms[0]!, terms.at(-1)!];
  if (terms.length === 1) return last;
  if (isName(first)) return { k: "rel", terms: [first, last], ops: ["="] };
  if (terms.length > 2 || symbols(first).size + symbols(last).size === 0) return last;
  if (last.k === "sym") return { k: "rel", terms: [last, first], ops: ["="] };
  return { k: "rel", terms, ops: ["="] };
}

/** name = value, or undefined. */
export function assignment(e: Expr): { readonly name: Expr; readonly value: Expr } | undefined {
  if (e.k !== "rel" || e.terms.length !== 2 || e.ops[0] !== "=") return undefined;
  const [name, value] = e.terms;
  return isName(name!) ? { name: name!, value: value! } : undefined;
}

/** `x in S` is S. */
export function membership(e: Expr): Expr | undefined {
  return e.k === "rel" && e.terms.length === 2 && e.ops[0] === "in" ? e.terms[1] : undefined;
}

/** The real numbers x for which an inequality or a chain of inequalities in one unknown with constant bounds holds. */
function solved(e: Relation): RealSet | undefined {
  const at = e.terms.findIndex((term) => symbols(term).size > 0);
  const unknown = e.terms[at];
  if (unknown === undefined || e.terms.some((term, i) => i !== at && symbols(term).size > 0)) return undefined;
  const modulus = unknown.k === "call" && unknown.name === "abs" && unknown.args[0]?.k === "sym";
  if (!modulus && !isName(unknown)) return undefined;
  let result: RealSet | undefined;
  for (const [i, op] of e.ops.entries()) {
    if (i !== at && i + 1 !== at) return undefined;
    const bound = endOf(e.terms[i === at ? i + 1 : i]!);
    const part = bound && solutions(i === at ? op : (FLIPPED[op] ?? op), bound);
    if (part === undefined) return undefined;
    result = result === undefined ? part : intersect(result, part);
  }
  return result !== undefined && modulus ? absolute(result) : result;
}

/** A set from a set, an interval, a membership or (where asked) an inequality. */
export function asSet(e: Expr, inequalities: boolean): RealSet | undefined {
  if (e.k === "set" && e.joined !== undefined && e.items.every((item) => item.k === "rel" && item.ops[0] !== "=")) {
    const parts = e.items.map((item) => asSet(item, inequalities));
    if (!parts.every((part) => part !== undefined)) return undefined;
    return parts.reduce(e.joined === "or" ? union : intersect);
  }
  if (e.k === "where") return e.condition.k === "rel" ? solved(e.condition) : undefined;
  const inside = membership(e);
  if (inside !== undefined) return setOf(inside);
  if (e.k === "rel") return inequalities ? solved(e) : undefined;
  return setOf(e);
}

/** a op b as the sign of a - b. */
export const sided = (e: Relation): Expr => ({
  k: "add",
  args: [e.terms[0]!, { k: "mul", args: [num(-1), e.terms[1]!] }],
});
