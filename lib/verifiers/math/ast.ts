/** What an answer is once it is read. Numbers are exact fractions of integers; `decimal` says that they were written with a point. */
export type Expr =
  | { readonly k: "num"; readonly n: bigint; readonly d: bigint; readonly decimal: boolean }
  | { readonly k: "sym"; readonly name: string }
  | { readonly k: "const"; readonly name: "pi" | "e" | "i" | "inf" }
  | { readonly k: "add" | "mul"; readonly args: readonly Expr[] }
  | { readonly k: "div" | "pow"; readonly a: Expr; readonly b: Expr }
  /** A function by name; `index` is a subscript with letters, as in F_{n-1}. Unknown names are unknown functions. */
  | { readonly k: "call"; readonly name: string; readonly args: readonly Expr[] }
  /** Sum or product of `body` over integers `variable` from `from` to `to`. */
  | {
      readonly k: "sum" | "prod";
      readonly variable: string;
      readonly from: Expr;
      readonly to: Expr;
      readonly body: Expr;
    }
  /** value plus or minus delta: two numbers. */
  | { readonly k: "pm"; readonly a: Expr; readonly b: Expr }
  | { readonly k: "percent"; readonly a: Expr }
  | { readonly k: "unit"; readonly a: Expr; readonly unit: string }
  | { readonly k: "text"; readonly text: string }
  | { readonly k: "based"; readonly digits: string; readonly base: number }
  | { readonly k: "matrix"; readonly rows: readonly (readonly Expr[])[] }
  /** (a, b), [a, b), ... : a tuple, a point, or an interval; which one is decided by what it is compared with. */
  | { readonly k: "tuple"; readonly items: readonly Expr[]; readonly open: "(" | "["; readonly close: ")" | "]" }
  /** Braces, or items separated by commas and "and": order does not matter. */
  | {
      readonly k: "set";
      readonly items: readonly Expr[];
      readonly braces: boolean;
      /** The word between the items, where it is the same for all: inequalities joined by it are one statement. */
      readonly joined?: "and" | "or";
    }
  | { readonly k: "setop"; readonly op: "union" | "intersect" | "minus"; readonly a: Expr; readonly b: Expr }
  /** { x : condition }. */
  | { readonly k: "where"; readonly condition: Expr }
  | { readonly k: "ratio"; readonly items: readonly Expr[] }
  /** a op b op c ...; "in" has a set on its right. */
  | { readonly k: "rel"; readonly terms: readonly Expr[]; readonly ops: readonly RelOp[] };

export type RelOp = "=" | "~" | "!=" | "<" | "<=" | ">" | ">=" | "in";

export const num = (n: bigint | number, d: bigint | number = 1n, decimal = false): Expr => {
  const [top, bottom] = [BigInt(n), BigInt(d)];
  const sign = bottom < 0n ? -1n : 1n;
  const g = gcd(top, bottom) || 1n;
  return { k: "num", n: (sign * top) / g, d: (sign * bottom) / g, decimal };
};

export function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
}

export const neg = (a: Expr): Expr => (a.k === "num" ? { ...a, n: -a.n } : { k: "mul", args: [num(-1), a] });

/** Direct parts of a scalar expression. */
export function parts(e: Expr): readonly Expr[] {
  switch (e.k) {
    case "add":
    case "mul":
    case "call":
      return e.args;
    case "div":
    case "pow":
    case "pm":
    case "setop":
      return [e.a, e.b];
    case "percent":
    case "unit":
      return [e.a];
    case "sum":
    case "prod":
      return [e.from, e.to, e.body];
    case "matrix":
      return e.rows.flat();
    case "tuple":
    case "set":
    case "ratio":
      return e.items;
    case "rel":
      return e.terms;
    case "where":
      return [e.condition];
    default:
      return [];
  }
}

/** Free symbols of an expression, names of unknown functions excluded. */
export function symbols(e: Expr, into: Set<string> = new Set(), bound: ReadonlySet<string> = new Set()): Set<string> {
  if (e.k === "sym") {
    if (!bound.has(e.name)) into.add(e.name);
    return into;
  }
  const inner = e.k === "sum" || e.k === "prod" ? new Set([...bound, e.variable]) : bound;
  for (const part of parts(e)) symbols(part, into, inner);
  return into;
}

export const some = (e: Expr, test: (e: Expr) => boolean): boolean =>
  test(e) || parts(e).some((part) => some(part, test));

/** One spelling for each structure, with the operands of sums, products and sets in order. */
export function canonical(e: Expr): string {
  const all = (items: readonly Expr[]) => items.map(canonical);
  switch (e.k) {
    case "num":
      return e.d === 1n ? `${e.n}` : `${e.n}/${e.d}`;
    case "sym":
      return `$${e.name}`;
    case "const":
      return e.name;
    case "add":
    case "mul":
      return `${e.k}(${all(e.args).sort().join(",")})`;
    case "set":
      return `set(${all(e.items).sort().join(",")})`;
    case "call":
      return `${e.name}(${all(e.args).join(",")})`;
    case "sum":
    case "prod":
      return `${e.k}[${e.variable}](${all([e.from, e.to, e.body]).join(",")})`;
    case "text":
      return `"${e.text}"`;
    case "unit":
      return `unit(${canonical(e.a)},${e.unit})`;
    case "based":
      return `${e.digits}_${e.base}`;
    case "matrix":
      return `matrix(${e.rows.map((row) => all(row).join(",")).join(";")})`;
    case "tuple":
      return `${e.open}${all(e.items).join(",")}${e.close}`;
    case "rel":
      return e.terms.map((term, i) => `${i === 0 ? "" : e.ops[i - 1]}${canonical(term)}`).join("");
    case "setop":
      return `${e.op}(${canonical(e.a)},${canonical(e.b)})`;
    default:
      return `${e.k}(${all(parts(e)).join(",")})`;
  }
}
