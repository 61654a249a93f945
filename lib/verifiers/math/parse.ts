/** Recursive descent over the tokens of one answer. What it cannot read is a `MathSyntaxError`, never a guess. */
import { type Expr, neg, num, type RelOp } from "./ast.js";
import { Atoms } from "./atoms.js";
import { call, MathSyntaxError, RELATIONS } from "./cursor.js";
import { tokenize } from "./tokens.js";
import { isUnitWord } from "./units.js";

const SET_OPS: Readonly<Record<string, "union" | "intersect" | "minus">> = {
  cup: "union", union: "union", cap: "intersect", setminus: "minus",
}; // biome-ignore format: a table

class Parser extends Atoms {
  answer(): Expr {
    const answer = this.list(() => this.at >= this.tokens.length);
    if (this.at < this.tokens.length) this.fail("the end");
    return answer;
  }

  protected list(done: () => boolean): Expr {
    const groups: Expr[][] = [[]];
    const words = new Set<"and" | "or" | ",">();
    while (!done()) {
      groups.at(-1)!.push(this.relation());
      if (done()) break;
      let separated = false;
      for (;;) {
        if (this.take("op", ";")) groups.push([]);
        else if (this.take("word", "and")) words.add("and");
        else if (this.take("word", "or")) words.add("or");
        else if (this.take("op", ",")) words.add(",");
        else break;
        separated = true;
      }
      if (!separated && !this.take("cmd", "newline")) break;
      if (done()) break;
    }
    const [word] = words;
    const joined = words.size === 1 && word !== "," ? word : undefined;
    return Parser.grouped(
      groups.filter((group) => group.length > 0),
      joined,
    );
  }

  /** "a, b; c, d" is a list of pairs; with one kind of separator only it is a list. */
  protected static grouped(groups: readonly Expr[][], joined: "and" | "or" | undefined): Expr {
    const pairs = groups.length > 1 && groups.every((group) => group.length > 1);
    const items = pairs
      ? groups.map((group): Expr => ({ k: "tuple", items: group, open: "(", close: ")" }))
      : groups.flat();
    if (items.length === 0) throw new MathSyntaxError("empty");
    if (items.length === 1) return items[0]!;
    return { k: "set", items, braces: false, ...(joined && { joined }) };
  }

  protected relation(): Expr {
    return this.nested(() => {
      const terms: Expr[] = [];
      const ops: RelOp[] = [];
      if (this.peek() !== undefined && this.relop() === undefined) terms.push(this.ratio());
      for (let op = this.relop(); op !== undefined; op = this.relop()) {
        this.at++;
        if (terms.length > 0) ops.push(op);
        terms.push(this.ratio());
      }
      if (terms.length === 0) this.fail("an expression");
      return terms.length === 1 ? terms[0]! : { k: "rel", terms, ops };
    });
  }

  protected relop(): RelOp | undefined {
    const token = this.peek();
    if (token === undefined || (token.t !== "op" && token.t !== "cmd" && token.v !== "in")) return undefined;
    return Object.hasOwn(RELATIONS, token.v) ? RELATIONS[token.v] : undefined;
  }

  protected ratio(): Expr {
    const items = [this.setExpression()];
    while (this.take("op", ":")) items.push(this.setExpression());
    return items.length === 1 ? items[0]! : { k: "ratio", items };
  }

  protected setExpression(): Expr {
    let left = this.sum();
    for (;;) {
      const token = this.peek();
      const op = token !== undefined && Object.hasOwn(SET_OPS, token.v) ? SET_OPS[token.v] : undefined;
      if (op === undefined) return left;
      this.at++;
      left = { k: "setop", op, a: left, b: this.sum() };
    }
  }

  protected sum(): Expr {
    let terms: Expr[] = [];
    let first = true;
    for (;;) {
      const minus = this.take("op", "-");
      const plus = !minus && this.take("op", "+");
      const both = !minus && !plus && (this.take("cmd", "pm") || this.take("cmd", "mp"));
      if (!first && !minus && !plus && !both) break;
      const term = this.term();
      if (both) {
        const left: Expr = terms.length === 0 ? num(0) : terms.length === 1 ? terms[0]! : { k: "add", args: terms };
        terms = [{ k: "pm", a: left, b: term }];
      } else terms.push(minus ? neg(term) : term);
      first = false;
    }
    return terms.length === 1 ? terms[0]! : { k: "add", args: terms };
  }

  protected term(): Expr {
    if (this.is("op", "-")) {
      this.at++;
      return neg(this.term());
    }
    let left = this.factor();
    for (;;) {
      if (this.take("op", "*")) left = { k: "mul", args: [left, this.signed()] };
      else if (this.take("op", "/")) left = { k: "div", a: left, b: this.signed() };
      else if (this.startsFactor()) {
        const right = this.factor();
        left = Parser.mixed(left, right) ?? { k: "mul", args: [left, right] };
      } else return left;
    }
  }

  protected signed(): Expr {
    return this.take("op", "-") ? neg(this.factor()) : this.factor();
  }

  /** 3 1/2 in the form 3\frac{1}{2} is seven halves. */
  protected static mixed(left: Expr, right: Expr): Expr | undefined {
    if (left.k !== "num" || left.d !== 1n || left.decimal || right.k !== "div") return undefined;
    if (right.a.k !== "num" || right.b.k !== "num" || right.a.d !== 1n || right.b.d !== 1n) return undefined;
    if (right.a.n < 0n || right.a.n >= right.b.n) return undefined;
    return { k: "add", args: [left, right] };
  }

  protected startsFactor(): boolean {
    const token = this.peek();
    if (token === undefined) return false;
    if (token.t === "num") return false;
    if (token.t === "letter" || token.t === "text") return true;
    if (token.t === "word") return token.v !== "and" && token.v !== "or" && token.v !== "in" && token.v !== "union";
    if (token.t === "op")
      return token.v === "(" || token.v === "{" || token.v === "[" || (token.v === "|" && this.bars === 0);
    return (
      !Object.hasOwn(RELATIONS, token.v) &&
      !Object.hasOwn(SET_OPS, token.v) &&
      !/^(?:pm|mp|mid|newline|end|rfloor|rceil|notin)$/.test(token.v)
    );
  }

  protected factor(): Expr {
    let base = this.subscripted(this.primary());
    for (;;) {
      if (this.take("op", "^")) base = this.power(base);
      else if (this.take("op", "!")) base = call("factorial", base);
      else if (this.take("op", "'")) base = base.k === "sym" ? { k: "sym", name: `${base.name}'` } : base;
      else if (this.take("op", "%") || this.percentWord()) base = { k: "percent", a: base };
      else if (this.peek()?.t === "text" && base.k !== "text") base = { k: "unit", a: base, unit: this.unitText() };
      else if (this.unitWord(base)) base = { k: "unit", a: base, unit: this.unitText() };
      else return base;
    }
  }

  protected percentWord(): boolean {
    const token = this.peek();
    const said = token?.t === "word" || token?.t === "text" ? token.v.toLowerCase() : "";
    if (!/^(?:percent|percentage|pct|per cent)$/.test(said)) return false;
    this.at++;
    return true;
  }

  protected unitWord(base: Expr): boolean {
    const token = this.peek();
    return token?.t === "word" && isUnitWord(token.v) && (base.k === "num" || base.k === "div" || base.k === "call");
  }

  /** The unit's text with its own power: "cm" then ^2. */
  protected unitText(): string {
    let unit = this.tokens[this.at++]!.v;
    if (this.take("op", "^")) {
      const braced = this.take("op", "{");
      unit += `^${this.tokens[this.at]?.v ?? ""}`;
      this.at++;
      if (braced) this.expect("op", "}");
    }
    return unit;
  }

  protected power(base: Expr): Expr {
    const degree = this.degree();
    if (degree) return { k: "unit", a: base, unit: "degree" };
    return { k: "pow", a: base, b: this.argument() };
  }

  protected degree(): boolean {
    const start = this.at;
    const braced = this.take("op", "{");
    if (this.take("cmd", "circ") && (!braced || this.take("op", "}"))) return true;
    this.at = start;
    return false;
  }
}

/** One answer, without its delimiters. Throws `MathSyntaxError`. */
export function parseMath(source: string): Expr {
  return new Parser(tokenize(source)).answer();
}
