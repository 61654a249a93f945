/** The tokens of one answer and the place that is being read. */
import { type Expr, neg, type RelOp } from "./ast.js";
import type { Token } from "./tokens.js";
import { isUnitWord } from "./units.js";

export class MathSyntaxError extends Error {}

/** Longest answer that is read, and deepest nesting. Longer ones are no answers. */
const MAX_TOKENS = 4000;
const MAX_DEPTH = 120;

export const RELATIONS: Readonly<Record<string, RelOp>> = {
  "=": "=", approx: "~", neq: "!=", "<": "<", "<=": "<=", leq: "<=", ">": ">", ">=": ">=", geq: ">=", in: "in",
}; // biome-ignore format: a table

export const call = (name: string, ...args: Expr[]): Expr => ({ k: "call", name, args });

/** The readers of the parts refer to each other; each part of the grammar is one class below this one. */
export abstract class Cursor {
  protected readonly tokens: Token[];
  protected at = 0;
  #depth = 0;

  constructor(tokens: Token[]) {
    if (tokens.length > MAX_TOKENS) throw new MathSyntaxError("too long");
    this.tokens = tokens;
  }

  /** Items up to `done`, separated by commas, semicolons, "and", "or". One item is itself. */
  protected abstract list(done: () => boolean): Expr;
  /** One item: an expression, or several with =, <, and so on between them. */
  protected abstract relation(): Expr;
  protected abstract sum(): Expr;
  protected abstract term(): Expr;
  /** A primary with everything that stands behind it: powers, factorials, percent signs, units. */
  protected abstract factor(): Expr;
  /** Whether a factor may start here, for products without a sign between. */
  protected abstract startsFactor(): boolean;
  protected abstract primary(): Expr;

  /** What `read` reads, one level deeper. */
  protected nested<T>(read: () => T): T {
    if (++this.#depth > MAX_DEPTH) throw new MathSyntaxError("too deep");
    const value = read();
    this.#depth--;
    return value;
  }

  protected peek(): Token | undefined {
    return this.tokens[this.at];
  }

  protected fail(expected: string): never {
    throw new MathSyntaxError(`expected ${expected} but found ${this.peek()?.v ?? "the end"}`);
  }

  protected is(t: Token["t"], v: string): boolean {
    const token = this.peek();
    return token?.t === t && token.v === v;
  }

  protected take(t: Token["t"], v: string): boolean {
    if (!this.is(t, v)) return false;
    this.at++;
    return true;
  }

  protected expect(t: Token["t"], v: string): void {
    if (!this.take(t, v)) this.fail(v);
  }

  protected braced(): Expr {
    this.expect("op", "{");
    const inner = this.list(() => this.is("op", "}"));
    this.expect("op", "}");
    return inner;
  }

  /** An argument in braces, or one token or command without. `digit`: only the first digit, as in \frac12. */
  protected argument(digit = false): Expr {
    if (this.is("op", "{")) return this.braced();
    if (this.take("op", "-")) return neg(this.argument());
    const token = this.peek();
    if (digit && token?.t === "num" && token.v.length > 1) {
      this.tokens.splice(this.at, 1, { ...token, v: token.v[0]! }, { ...token, v: token.v.slice(1) });
    }
    if (token?.t === "word" && token.v.length > 1 && !isUnitWord(token.v)) this.spell(token);
    return this.primary();
  }

  /** A word becomes its letters: xy is x times y. */
  protected spell(token: Token): void {
    const letters = [...token.v].map((v, i): Token => ({ t: "letter", v, gap: i === 0 && token.gap }));
    this.tokens.splice(this.at, 1, ...letters);
  }
}
