/** Recursive descent over the tokens of one answer. What it cannot read is a `MathSyntaxError`, never a guess. */
import { type Expr, neg, num, type RelOp } from "./ast.js";
import { FUNCTIONS, type Token, tokenize } from "./tokens.js";
import { isUnitWord } from "./units.js";

export class MathSyntaxError extends Error {}

/** Longest answer that is read, and deepest nesting. Longer ones are no answers. */
const MAX_TOKENS = 4000;
const MAX_DEPTH = 120;

const RELATIONS: Readonly<Record<string, RelOp>> = {
  "=": "=", approx: "~", neq: "!=", "<": "<", "<=": "<=", leq: "<=", ">": ">", ">=": ">=", geq: ">=", in: "in",
}; // biome-ignore format: a table
const SET_OPS: Readonly<Record<string, "union" | "intersect" | "minus">> = {
  cup: "union", union: "union", cap: "intersect", setminus: "minus",
}; // biome-ignore format: a table
/** Letters that are functions when a parenthesis follows at once; others are factors. */
const CALLED = new Set("fghFGHPQWT");
/** One argument, kept as part of a name: \vec{a}, \overline{AB}. */
const ACCENTS = new Set(
  "vec overline hat bar tilde overrightarrow widehat mathbf mathcal angle triangle underline".split(" "),
);
/** Operators with a meaning that is not read here: better no reading than one as a symbol. */
const UNREAD = new Set(
  "int iint iiint oint lim limsup liminf partial nabla forall exists to rightarrow Rightarrow implies iff mapsto perp parallel subset subseteq supset mod bmod notin not overbrace underbrace cases choose over atop end rfloor rceil".split(
    " ",
  ),
);
const MATRICES = /^(?:[pbvBV]?matrix|smallmatrix|array)$/;
const INFINITY: Expr = { k: "const", name: "inf" };
const REALS: Expr = { k: "tuple", items: [neg(INFINITY), INFINITY], open: "(", close: ")" };
const COMPLEX_I: Expr = { k: "const", name: "i" };

/** "12.50" is 25/2, written as a decimal. */
export function parseNumber(text: string): Expr {
  const [whole = "", fraction] = text.split(".");
  if (fraction === undefined) return num(BigInt(whole));
  return num(BigInt(`${whole}${fraction}`), 10n ** BigInt(fraction.length), true);
}

const product = (args: readonly Expr[]): Expr => (args.length === 1 ? args[0]! : { k: "mul", args });
const call = (name: string, ...args: Expr[]): Expr => ({ k: "call", name, args });

class Parser {
  readonly #tokens: Token[];
  readonly #bound = new Set<string>();
  #at = 0;
  #depth = 0;
  #bars = 0;

  constructor(tokens: Token[]) {
    if (tokens.length > MAX_TOKENS) throw new MathSyntaxError("too long");
    this.#tokens = tokens;
  }

  answer(): Expr {
    const answer = this.#list(() => this.#at >= this.#tokens.length);
    if (this.#at < this.#tokens.length) this.#fail("the end");
    return answer;
  }

  #peek(): Token | undefined {
    return this.#tokens[this.#at];
  }

  #fail(expected: string): never {
    throw new MathSyntaxError(`expected ${expected} but found ${this.#peek()?.v ?? "the end"}`);
  }

  #is(t: Token["t"], v: string): boolean {
    const token = this.#peek();
    return token?.t === t && token.v === v;
  }

  #take(t: Token["t"], v: string): boolean {
    if (!this.#is(t, v)) return false;
    this.#at++;
    return true;
  }

  #expect(t: Token["t"], v: string): void {
    if (!this.#take(t, v)) this.#fail(v);
  }

  /** Items up to `done`, separated by commas, semicolons, "and", "or". One item is itself. */
  #list(done: () => boolean): Expr {
    const groups: Expr[][] = [[]];
    while (!done()) {
      groups.at(-1)!.push(this.#relation());
      if (done()) break;
      let separated = false;
      for (;;) {
        if (this.#take("op", ";")) groups.push([]);
        else if (!this.#take("op", ",") && !this.#take("word", "and") && !this.#take("word", "or")) break;
        separated = true;
      }
      if (!separated && !this.#take("cmd", "newline")) break;
      if (done()) break;
    }
    return Parser.#grouped(groups.filter((group) => group.length > 0));
  }

  /** "a, b; c, d" is a list of pairs; with one kind of separator only it is a list. */
  static #grouped(groups: readonly Expr[][]): Expr {
    const pairs = groups.length > 1 && groups.every((group) => group.length > 1);
    const items = pairs
      ? groups.map((group): Expr => ({ k: "tuple", items: group, open: "(", close: ")" }))
      : groups.flat();
    if (items.length === 0) throw new MathSyntaxError("empty");
    return items.length === 1 ? items[0]! : { k: "set", items, braces: false };
  }

  #relation(): Expr {
    if (++this.#depth > MAX_DEPTH) throw new MathSyntaxError("too deep");
    const terms: Expr[] = [];
    const ops: RelOp[] = [];
    if (this.#peek() !== undefined && this.#relop() === undefined) terms.push(this.#ratio());
    for (let op = this.#relop(); op !== undefined; op = this.#relop()) {
      this.#at++;
      if (terms.length > 0) ops.push(op);
      terms.push(this.#ratio());
    }
    this.#depth--;
    if (terms.length === 0) this.#fail("an expression");
    return terms.length === 1 ? terms[0]! : { k: "rel", terms, ops };
  }

  #relop(): RelOp | undefined {
    const token = this.#peek();
    if (token === undefined || (token.t !== "op" && token.t !== "cmd" && token.v !== "in")) return undefined;
    return Object.hasOwn(RELATIONS, token.v) ? RELATIONS[token.v] : undefined;
  }

  #ratio(): Expr {
    const items = [this.#setExpression()];
    while (this.#take("op", ":")) items.push(this.#setExpression());
    return items.length === 1 ? items[0]! : { k: "ratio", items };
  }

  #setExpression(): Expr {
    let left = this.#sum();
    for (;;) {
      const token = this.#peek();
      const op = token !== undefined && Object.hasOwn(SET_OPS, token.v) ? SET_OPS[token.v] : undefined;
      if (op === undefined) return left;
      this.#at++;
      left = { k: "setop", op, a: left, b: this.#sum() };
    }
  }

  #sum(): Expr {
    let terms: Expr[] = [];
    let first = true;
    for (;;) {
      const minus = this.#take("op", "-");
      const plus = !minus && this.#take("op", "+");
      const both = !minus && !plus && (this.#take("cmd", "pm") || this.#take("cmd", "mp"));
      if (!first && !minus && !plus && !both) break;
      const term = this.#term();
      if (both) {
        const left: Expr = terms.length === 0 ? num(0) : terms.length === 1 ? terms[0]! : { k: "add", args: terms };
        terms = [{ k: "pm", a: left, b: term }];
      } else terms.push(minus ? neg(term) : term);
      first = false;
    }
    return terms.length === 1 ? terms[0]! : { k: "add", args: terms };
  }

  #term(): Expr {
    if (this.#is("op", "-")) {
      this.#at++;
      return neg(this.#term());
    }
    let left = this.#factor();
    for (;;) {
      if (this.#take("op", "*")) left = { k: "mul", args: [left, this.#signed()] };
      else if (this.#take("op", "/")) left = { k: "div", a: left, b: this.#signed() };
      else if (this.#startsFactor()) {
        const right = this.#factor();
        left = Parser.#mixed(left, right) ?? { k: "mul", args: [left, right] };
      } else return left;
    }
  }

  #signed(): Expr {
    return this.#take("op", "-") ? neg(this.#factor()) : this.#factor();
  }

  /** 3 1/2 in the form 3\frac{1}{2} is seven halves. */
  static #mixed(left: Expr, right: Expr): Expr | undefined {
    if (left.k !== "num" || left.d !== 1n || left.decimal || right.k !== "div") return undefined;
    if (right.a.k !== "num" || right.b.k !== "num" || right.a.d !== 1n || right.b.d !== 1n) return undefined;
    if (right.a.n < 0n || right.a.n >= right.b.n) return undefined;
    return { k: "add", args: [left, right] };
  }

  /** Whether a factor may start here, for products without a sign between. */
  #startsFactor(): boolean {
    const token = this.#peek();
    if (token === undefined) return false;
    if (token.t === "num") return false;
    if (token.t === "letter" || token.t === "text") return true;
    if (token.t === "word") return token.v !== "and" && token.v !== "or" && token.v !== "in" && token.v !== "union";
    if (token.t === "op")
      return token.v === "(" || token.v === "{" || token.v === "[" || (token.v === "|" && this.#bars === 0);
    return (
      !Object.hasOwn(RELATIONS, token.v) &&
      !Object.hasOwn(SET_OPS, token.v) &&
      !/^(?:pm|mp|newline|end|rfloor|rceil|notin)$/.test(token.v)
    );
  }

  /** A primary with everything that stands behind it: powers, factorials, percent signs, units. */
  #factor(): Expr {
    let base = this.#subscripted(this.#primary());
    for (;;) {
      if (this.#take("op", "^")) base = this.#power(base);
      else if (this.#take("op", "!")) base = call("factorial", base);
      else if (this.#take("op", "'")) base = base.k === "sym" ? { k: "sym", name: `${base.name}'` } : base;
      else if (this.#take("op", "%") || this.#percentWord()) base = { k: "percent", a: base };
      else if (this.#peek()?.t === "text" && base.k !== "text") base = { k: "unit", a: base, unit: this.#unitText() };
      else if (this.#unitWord(base)) base = { k: "unit", a: base, unit: this.#unitText() };
      else return base;
    }
  }

  #percentWord(): boolean {
    const token = this.#peek();
    const said = token?.t === "word" || token?.t === "text" ? token.v.toLowerCase() : "";
    if (!/^(?:percent|percentage|pct|per cent)$/.test(said)) return false;
    this.#at++;
    return true;
  }

  #unitWord(base: Expr): boolean {
    const token = this.#peek();
    return token?.t === "word" && isUnitWord(token.v) && (base.k === "num" || base.k === "div" || base.k === "call");
  }

  /** The unit's text with its own power: "cm" then ^2. */
  #unitText(): string {
    let unit = this.#tokens[this.#at++]!.v;
    if (this.#take("op", "^")) {
      const braced = this.#take("op", "{");
      unit += `^${this.#tokens[this.#at]?.v ?? ""}`;
      this.#at++;
      if (braced) this.#expect("op", "}");
    }
    return unit;
  }

  #power(base: Expr): Expr {
    const degree = this.#degree();
    if (degree) return { k: "unit", a: base, unit: "degree" };
    return { k: "pow", a: base, b: this.#argument() };
  }

  #degree(): boolean {
    const start = this.#at;
    const braced = this.#take("op", "{");
    if (this.#take("cmd", "circ") && (!braced || this.#take("op", "}"))) return true;
    this.#at = start;
    return false;
  }

  /** An argument in braces, or one token or command without. `digit`: only the first digit, as in \frac12. */
  #argument(digit = false): Expr {
    if (this.#is("op", "{")) return this.#braced();
    if (this.#take("op", "-")) return neg(this.#argument());
    const token = this.#peek();
    if (digit && token?.t === "num" && token.v.length > 1) {
      this.#tokens.splice(this.#at, 1, { ...token, v: token.v[0]! }, { ...token, v: token.v.slice(1) });
    }
    if (token?.t === "word" && token.v.length > 1 && !isUnitWord(token.v)) this.#spell(token);
    return this.#primary();
  }

  #braced(): Expr {
    this.#expect("op", "{");
    const inner = this.#list(() => this.#is("op", "}"));
    this.#expect("op", "}");
    return inner;
  }

  /** A word becomes its letters: xy is x times y. */
  #spell(token: Token): void {
    const letters = [...token.v].map((v, i): Token => ({ t: "letter", v, gap: i === 0 && token.gap }));
    this.#tokens.splice(this.#at, 1, ...letters);
  }

  #subscripted(base: Expr): Expr {
    if (!this.#is("op", "_")) return base;
    this.#at++;
    const index = this.#argument();
    if (base.k === "num" && index.k === "num" && index.n >= 2n && index.n <= 36n) {
      return { k: "based", digits: `${base.n}`, base: Number(index.n) };
    }
    if (base.k !== "sym" && base.k !== "const") this.#fail("a symbol before a subscript");
    if (index.k === "num" && index.d === 1n) return { k: "sym", name: `${base.name}_${index.n}` };
    return call(`${base.name}_`, index);
  }

  #primary(): Expr {
    if (++this.#depth > MAX_DEPTH) throw new MathSyntaxError("too deep");
    const token = this.#peek();
    if (token === undefined) this.#fail("an expression");
    this.#at++;
    const made = this.#primaryOf(token);
    this.#depth--;
    return made;
  }

  #primaryOf(token: Token): Expr {
    switch (token.t) {
      case "num":
        return this.#number(token.v);
      case "letter":
        return this.#letter(token.v);
      case "text":
        return { k: "text", text: token.v };
      case "word":
        return this.#word(token);
      case "cmd":
        return this.#command(token.v);
      default:
        return this.#bracket(token.v);
    }
  }

  /** 0.1\overline{6}: a repeating decimal is exact. */
  #number(text: string): Expr {
    if (!text.includes(".") && this.#is("cmd", "overline")) return parseNumber(text);
    if (!this.#take("cmd", "overline")) return parseNumber(text);
    this.#expect("op", "{");
    const digits = this.#tokens[this.#at++]?.v ?? "";
    this.#expect("op", "}");
    if (!/^\d{1,40}$/.test(digits)) this.#fail("repeating digits");
    const fraction = text.split(".")[1] ?? "";
    const all = BigInt(text.replace(".", "") + digits) - BigInt(text.replace(".", "") || "0");
    return num(all, 10n ** BigInt(fraction.length) * (10n ** BigInt(digits.length) - 1n));
  }

  #letter(name: string): Expr {
    if (!this.#bound.has(name)) {
      if (name === "e" && !this.#is("op", "_")) return { k: "const", name: "e" };
      if (name === "i" && !this.#is("op", "_")) return COMPLEX_I;
    }
    if (CALLED.has(name) && this.#is("op", "(") && !this.#peek()!.gap) {
      this.#at++;
      const inner = this.#list(() => this.#is("op", ")"));
      this.#expect("op", ")");
      return call(name, ...(inner.k === "set" && !inner.braces ? inner.items : [inner]));
    }
    return { k: "sym", name };
  }

  #word(token: Token): Expr {
    if (token.v === "pi") return { k: "const", name: "pi" };
    if (token.v === "infty" || token.v === "inf" || token.v === "infinity") return INFINITY;
    const joined = /^(sin|cos|tan|cot|sec|csc|ln|log)([a-z])$/.exec(token.v);
    if (joined !== null) return call(joined[1]!, { k: "sym", name: joined[2]! });
    if (["and", "or", "in", "union", "percent", "percentage", "pct"].includes(token.v)) this.#fail("an expression");
    // A word of prose is no product of its letters; capitals name points.
    if (token.v.length > 3 && !/^[A-Z]+$/.test(token.v)) return { k: "text", text: token.v };
    this.#at--;
    this.#spell(token);
    return this.#primary();
  }

  #command(name: string): Expr {
    if (FUNCTIONS.has(name) && name !== "sqrt") return this.#function(name);
    switch (name) {
      case "frac": {
        const a = this.#argument(true);
        return { k: "div", a, b: this.#argument(true) };
      }
      case "sqrt":
        return this.#root();
      case "binom": {
        const n = this.#argument(true);
        return call("binom", n, this.#argument(true));
      }
      case "pi":
        return { k: "const", name: "pi" };
      case "infty":
        return INFINITY;
      case "emptyset":
        return { k: "set", items: [], braces: true };
      case "boxed":
      case "fbox":
      case "ensuremath":
        return this.#argument();
      case "mathbb":
      case "R":
      case "Z":
        return this.#numberSet(name);
      case "begin":
        return this.#environment();
      case "lfloor":
      case "lceil":
        return this.#between(name === "lfloor" ? "rfloor" : "rceil", name === "lfloor" ? "floor" : "ceil");
      case "sum":
      case "prod":
        return this.#bigOperator(name);
      case "pmod":
        this.#argument();
        return num(1);
      default:
        if (ACCENTS.has(name)) return this.#accent(name);
        if (!/^[a-zA-Z]+$/.test(name) || Object.hasOwn(RELATIONS, name) || UNREAD.has(name))
          this.#fail("an expression");
        return { k: "sym", name };
    }
  }

  #accent(name: string): Expr {
    const start = this.#at;
    this.#argument();
    const inside = this.#tokens.slice(start, this.#at).map(({ v }) => v);
    return { k: "sym", name: `${name}:${inside.filter((v) => v !== "{" && v !== "}").join("")}` };
  }

  #numberSet(name: string): Expr {
    const letter = name === "mathbb" ? this.#argument() : ({ k: "sym", name } as const);
    if (letter.k === "sym" && letter.name === "R") return REALS;
    return { k: "sym", name: `mathbb:${letter.k === "sym" ? letter.name : "?"}` };
  }

  #between(close: string, name: string): Expr {
    const inner = this.#sum();
    this.#expect("cmd", close);
    return call(name, inner);
  }

  #root(): Expr {
    let index: Expr = num(2);
    if (this.#take("op", "[")) {
      index = this.#sum();
      this.#expect("op", "]");
    }
    return { k: "pow", a: this.#argument(), b: { k: "div", a: num(1), b: index } };
  }

  #function(name: string): Expr {
    let exponent: Expr | undefined;
    let base: Expr | undefined;
    for (;;) {
      if (this.#take("op", "^")) exponent = this.#argument();
      else if (this.#take("op", "_")) base = this.#argument();
      else break;
    }
    const argument = this.#functionArgument();
    const inverse = exponent?.k === "num" && exponent.n === -1n && exponent.d === 1n;
    const listed = argument.k === "set" && !argument.braces ? argument.items : [argument];
    const named = inverse && /^(?:sin|cos|tan)$/.test(name) ? `arc${name}` : name.replace(/^a(sin|cos|tan)$/, "arc$1");
    const made = name === "log" && base !== undefined ? call("log", argument, base) : call(named, ...listed);
    return exponent === undefined || named !== name ? made : { k: "pow", a: made, b: exponent };
  }

  /** In brackets, or the product that follows: \sin 2x \cos y is (sin 2x)(cos y). */
  #functionArgument(): Expr {
    if (this.#is("op", "(") || this.#is("op", "{") || this.#is("op", "[")) return this.#primary();
    if (this.#take("op", "-")) return neg(this.#functionArgument());
    const factors = [this.#factor()];
    while (this.#startsFactor() && !this.#is("op", "(")) {
      const next = this.#peek();
      if (next?.t === "cmd" && FUNCTIONS.has(next.v) && next.v !== "sqrt") break;
      if (next?.t === "text") break;
      factors.push(this.#factor());
    }
    return product(factors);
  }

  #bigOperator(k: "sum" | "prod"): Expr {
    this.#expect("op", "_");
    this.#expect("op", "{");
    const variable = this.#peek();
    if (variable?.t !== "letter") this.#fail("a variable");
    this.#at++;
    this.#expect("op", "=");
    const from = this.#sum();
    this.#expect("op", "}");
    this.#expect("op", "^");
    const to = this.#argument();
    this.#bound.add(variable.v);
    const body = this.#term();
    this.#bound.delete(variable.v);
    return { k, variable: variable.v, from, to, body };
  }

  #environment(): Expr {
    const name = this.#environmentName();
    if (!MATRICES.test(name)) this.#fail("a matrix");
    if (name === "array") this.#skipGroup();
    const rows: Expr[][] = [[]];
    while (!this.#is("cmd", "end")) {
      if (this.#peek() === undefined) this.#fail("\\end");
      if (this.#take("cmd", "newline")) rows.push([]);
      else if (!this.#take("op", "&")) rows.at(-1)!.push(this.#relation());
    }
    this.#at++;
    if (this.#environmentName() !== name) this.#fail(`\\end{${name}}`);
    const full = rows.filter((row) => row.length > 0);
    if (full.length === 0 || full.some((row) => row.length !== full[0]!.length))
      throw new MathSyntaxError("ragged matrix");
    return { k: "matrix", rows: full };
  }

  #environmentName(): string {
    this.#expect("op", "{");
    let name = "";
    while (!this.#is("op", "}")) {
      if (this.#peek() === undefined) this.#fail("}");
      name += this.#tokens[this.#at++]!.v;
    }
    this.#at++;
    return name;
  }

  #skipGroup(): void {
    if (!this.#take("op", "{")) return;
    while (!this.#take("op", "}")) if (this.#tokens[this.#at++] === undefined) this.#fail("}");
  }

  #bracket(open: string): Expr {
    if (open === "{") {
      this.#at--;
      return this.#braced();
    }
    if (open === "\\{") {
      if (this.#take("op", "\\}")) return { k: "set", items: [], braces: true };
      const inner = this.#list(() => this.#is("op", "\\}"));
      this.#expect("op", "\\}");
      return { k: "set", items: inner.k === "set" && !inner.braces ? inner.items : [inner], braces: true };
    }
    if (open === "|") {
      this.#bars++;
      const inner = this.#sum();
      this.#bars--;
      this.#expect("op", "|");
      return call("abs", inner);
    }
    if (open !== "(" && open !== "[") {
      this.#at--;
      this.#fail("an expression");
    }
    return this.#parenthesised(open);
  }

  #parenthesised(open: "(" | "["): Expr {
    const bars = this.#bars;
    this.#bars = 0;
    const inner = this.#list(() => this.#is("op", ")") || this.#is("op", "]"));
    this.#bars = bars;
    const close = this.#take("op", ")") ? ")" : this.#take("op", "]") ? "]" : this.#fail(") or ]");
    const items = inner.k === "set" && !inner.braces ? inner.items : [inner];
    if (items.length === 1 && (open === "(") === (close === ")")) return items[0]!;
    return { k: "tuple", items, open, close };
  }
}

/** One answer, without its delimiters. Throws `MathSyntaxError`. */
export function parseMath(source: string): Expr {
  return new Parser(tokenize(source)).answer();
}
