/** What takes arguments of its own form: functions, sums and products, matrices. */
import { type Expr, neg } from "./ast.js";
import { Cursor, call, MathSyntaxError } from "./cursor.js";
import { FUNCTIONS } from "./tokens.js";

const MATRICES = /^(?:[pbvBV]?matrix|smallmatrix|array)$/;

const product = (args: readonly Expr[]): Expr => (args.length === 1 ? args[0]! : { k: "mul", args });

export abstract class Operators extends Cursor {
  /** Letters that are indices of a sum here, i and e among them. */
  protected readonly bound = new Set<string>();

  protected function(name: string): Expr {
    let exponent: Expr | undefined;
    let base: Expr | undefined;
    for (;;) {
      if (this.take("op", "^")) exponent = this.argument();
      else if (this.take("op", "_")) base = this.argument();
      else break;
    }
    const argument = this.functionArgument();
    const inverse = exponent?.k === "num" && exponent.n === -1n && exponent.d === 1n;
    const several = argument.k === "tuple" || (argument.k === "set" && !argument.braces);
    const listed = several ? argument.items : [argument];
    const named = inverse && /^(?:sin|cos|tan)$/.test(name) ? `arc${name}` : name.replace(/^a(sin|cos|tan)$/, "arc$1");
    const made = name === "log" && base !== undefined ? call("log", argument, base) : call(named, ...listed);
    return exponent === undefined || named !== name ? made : { k: "pow", a: made, b: exponent };
  }

  /** In brackets, or the product that follows: \sin 2x \cos y is (sin 2x)(cos y). */
  protected functionArgument(): Expr {
    if (this.is("op", "(") || this.is("op", "{") || this.is("op", "[")) return this.primary();
    if (this.take("op", "-")) return neg(this.functionArgument());
    const factors = [this.factor()];
    while (this.startsFactor() && !this.is("op", "(")) {
      const next = this.peek();
      if (next?.t === "cmd" && FUNCTIONS.has(next.v) && next.v !== "sqrt") break;
      if (next?.t === "text") break;
      factors.push(this.factor());
    }
    return product(factors);
  }

  protected bigOperator(k: "sum" | "prod"): Expr {
    this.expect("op", "_");
    this.expect("op", "{");
    const variable = this.peek();
    if (variable?.t !== "letter") this.fail("a variable");
    this.at++;
    this.expect("op", "=");
    const from = this.sum();
    this.expect("op", "}");
    this.expect("op", "^");
    const to = this.argument();
    this.bound.add(variable.v);
    const body = this.term();
    this.bound.delete(variable.v);
    return { k, variable: variable.v, from, to, body };
  }

  protected environment(): Expr {
    const name = this.environmentName();
    if (!MATRICES.test(name)) this.fail("a matrix");
    if (name === "array") this.skipGroup();
    const rows: Expr[][] = [[]];
    while (!this.is("cmd", "end")) {
      if (this.peek() === undefined) this.fail("\\end");
      if (this.take("cmd", "newline")) rows.push([]);
      else if (!this.take("op", "&")) rows.at(-1)!.push(this.relation());
    }
    this.at++;
    if (this.environmentName() !== name) this.fail(`\\end{${name}}`);
    const full = rows.filter((row) => row.length > 0);
    if (full.length === 0 || full.some((row) => row.length !== full[0]!.length))
      throw new MathSyntaxError("ragged matrix");
    return { k: "matrix", rows: full };
  }

  protected environmentName(): string {
    this.expect("op", "{");
    let name = "";
    while (!this.is("op", "}")) {
      if (this.peek() === undefined) this.fail("}");
      name += this.tokens[this.at++]!.v;
    }
    this.at++;
    return name;
  }

  protected skipGroup(): void {
    if (!this.take("op", "{")) return;
    while (!this.take("op", "}")) if (this.tokens[this.at++] === undefined) this.fail("}");
  }
}
