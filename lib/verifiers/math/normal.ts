/** Takes off an answer what is beside its value: units, percent signs, plus-minus written short, chains of equations. */
import { type Expr, num, some } from "./ast.js";
import { membership, shortened } from "./relations.js";

/** An expression with one sign for each plus-minus in it, the same for all. */
function signed(e: Expr, sign: 1 | -1): Expr {
  if (e.k === "pm") return { k: "add", args: [signed(e.a, sign), { k: "mul", args: [num(sign), signed(e.b, sign)] }] };
  if (!some(e, (part) => part.k === "pm")) return e;
  switch (e.k) {
    case "add":
    case "mul":
    case "call":
      return { ...e, args: e.args.map((arg) => signed(arg, sign)) };
    case "div":
    case "pow":
      return { ...e, a: signed(e.a, sign), b: signed(e.b, sign) };
    case "rel":
      return { ...e, terms: e.terms.map((term) => signed(term, sign)) };
    case "tuple":
      return { ...e, items: e.items.map((item) => signed(item, sign)) };
    default:
      return e;
  }
}

/** Plus-minus written out: a list of two where there was one, flat inside a list. */
function expanded(e: Expr): Expr {
  if (!some(e, (part) => part.k === "pm")) return e;
  const both = (one: Expr) => (some(one, (part) => part.k === "pm") ? [signed(one, 1), signed(one, -1)] : [one]);
  return e.k === "set" ? { ...e, items: e.items.flatMap(both) } : { k: "set", items: both(e), braces: false };
}

/** Units taken off, except in the argument of a function, where degrees are numbers. */
function withoutUnits(e: Expr, found: Set<string>): Expr {
  switch (e.k) {
    case "unit":
      found.add(e.unit.trim());
      return withoutUnits(e.a, found);
    case "add":
    case "mul":
      return { ...e, args: e.args.map((arg) => withoutUnits(arg, found)) };
    case "div":
      return { ...e, a: withoutUnits(e.a, found), b: withoutUnits(e.b, found) };
    case "pm":
      return { ...e, a: withoutUnits(e.a, found), b: withoutUnits(e.b, found) };
    case "rel":
      return { ...e, terms: e.terms.map((term) => withoutUnits(term, found)) };
    case "set":
    case "tuple":
      return { ...e, items: e.items.map((item) => withoutUnits(item, found)) };
    default:
      return e;
  }
}

/** An answer without what does not belong to its value. */
export interface Read {
  readonly e: Expr;
  readonly percent: boolean;
  /** The one unit of a scalar. */
  readonly unit: string | undefined;
}

export function readValue(e: Expr): Read {
  const units = new Set<string>();
  const plain = shortened(expanded(withoutUnits(e, units)));
  const bare = membership(plain) ?? plain;
  const unit = units.size === 1 ? [...units][0] : undefined;
  return bare.k === "percent" ? { e: bare.a, percent: true, unit } : { e: bare, percent: false, unit };
}
