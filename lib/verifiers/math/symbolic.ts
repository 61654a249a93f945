/** The algebra library's opinion: whether a difference simplifies to zero. Loaded when it is first needed (3 MB). */
import { type Expr, num, parts, some, symbols } from "./ast.js";
import { valueAt } from "./evaluate.js";

/** What is used of nerdamer-prime. */
interface Algebra {
  (expression: string): { toString(): string };
  flush(): void;
}

let algebra: Promise<Algebra> | undefined;

export function loadAlgebra(): Promise<unknown> {
  algebra ??= import("nerdamer-prime").then((module) => module.default as unknown as Algebra);
  return algebra;
}

/** The library writes out every power and every number: larger ones take it seconds. */
const MAX_EXPONENT = 100;
const MAX_DIGITS = 40;
function isHuge(e: Expr): boolean {
  if (e.k === "num") return `${e.n}${e.d}`.length > MAX_DIGITS;
  if (e.k === "call") return e.name === "factorial";
  if (e.k !== "pow" || symbols(e.b).size > 0) return false;
  const exponent = valueAt(e.b, new Map());
  return exponent === undefined || exponent.abs() > MAX_EXPONENT;
}

/** Above this many nodes a simplification takes longer than the answer is worth; spot checks decide. */
const MAX_NODES = 120;

const size = (e: Expr): number => parts(e).reduce((sum, part) => sum + size(part), 1);

const NAMES: Readonly<Record<string, string>> = {
  sin: "sin", cos: "cos", tan: "tan", sec: "sec", csc: "csc", cot: "cot", arcsin: "asin", arccos: "acos", arctan: "atan",
  sinh: "sinh", cosh: "cosh", tanh: "tanh", ln: "log", exp: "exp", abs: "abs",
}; // biome-ignore format: a table

/** The library's spelling, with its own names for symbols so that none can mean something to it; undefined: not its language. */
function spell(e: Expr, names: ReadonlyMap<string, string>): string | undefined {
  const all = (items: readonly Expr[]) => items.map((item) => spell(item, names));
  const join = (items: readonly Expr[], by: string) => {
    const spelt = all(items);
    return spelt.every((one) => one !== undefined) ? `(${spelt.map((one) => `(${one})`).join(by)})` : undefined;
  };
  switch (e.k) {
    case "num":
      return `(${e.n}/${e.d})`;
    case "sym":
      return names.get(e.name);
    case "const":
      return e.name === "inf" ? undefined : e.name;
    case "add":
      return join(e.args, "+");
    case "mul":
      return join(e.args, "*");
    case "div":
      return join([e.a, e.b], "/");
    case "pow":
      return join([e.a, e.b], "^");
    case "call": {
      const name = Object.hasOwn(NAMES, e.name)
        ? NAMES[e.name]
        : e.name === "log" && e.args.length === 1
          ? "log"
          : undefined;
      const argument = e.args.length === 1 ? spell(e.args[0]!, names) : undefined;
      return name === undefined || argument === undefined ? undefined : `${name}(${argument})`;
    }
    default:
      return undefined;
  }
}

/** True where the library shows that a = b; undefined where it does not, which says nothing. */
export async function provenEqual(a: Expr, b: Expr): Promise<true | undefined> {
  const difference: Expr = { k: "add", args: [a, { k: "mul", args: [num(-1), b] }] };
  if (size(difference) > MAX_NODES || some(difference, isHuge)) return undefined;
  const names = new Map([...symbols(difference)].map((name, i) => [name, `v${i}`] as const));
  const spelt = spell(difference, names);
  if (spelt === undefined) return undefined;
  await loadAlgebra();
  const library = await algebra!;
  try {
    for (const how of ["expand", "simplify"]) if (library(`${how}(${spelt})`).toString() === "0") return true;
  } catch {
    // It gave up: spot checks decide.
  } finally {
    library.flush();
  }
  return undefined;
}
