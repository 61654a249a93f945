/** Single things: numbers, letters, words, commands and what stands in brackets. */
import { type Expr, neg, num } from "./ast.js";
import { call, RELATIONS } from "./cursor.js";
import { Operators } from "./operators.js";
import { FUNCTIONS, type Token } from "./tokens.js";

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
const INFINITY: Expr = { k: "const", name: "inf" };
const REALS: Expr = { k: "tuple", items: [neg(INFINITY), INFINITY], open: "(", close: ")" };
const COMPLEX_I: Expr = { k: "const", name: "i" };

/** "12.50" is 25/2, written as a decimal. */
function parseNumber(text: string): Expr {
  const [whole = "", fraction] = text.split(".");
  if (fraction === undefined) return num(BigInt(whole));
  return num(BigInt(`${whole}${fraction}`), 10n ** BigInt(fraction.length), true);
}

/** In `x : x > 2` the colon binds first, as in a ratio: what stands behind it is the condition. */
function behindColon(e: Expr): Expr | undefined {
  const [first, ...rest] = e.k === "rel" ? e.terms : [];
  if (e.k !== "rel" || first?.k !== "ratio" || first.items.length !== 2) return undefined;
  return { ...e, terms: [first.items[1]!, ...rest] };
}

export abstract class Atoms extends Operators {
  /** Open bars of absolute values: inside one, the next bar closes it. */
  protected bars = 0;

  protected subscripted(base: Expr): Expr {
    if (!this.is("op", "_")) return base;
    this.at++;
    const index = this.argument();
    if (base.k === "num" && index.k === "num" && index.n >= 2n && index.n <= 36n) {
      return { k: "based", digits: `${base.n}`, base: Number(index.n) };
    }
    if (base.k !== "sym" && base.k !== "const") this.fail("a symbol before a subscript");
    if (index.k === "num" && index.d === 1n) return { k: "sym", name: `${base.name}_${index.n}` };
    return call(`${base.name}_`, index);
  }

  protected primary(): Expr {
    return this.nested(() => {
      const token = this.peek();
      if (token === undefined) this.fail("an expression");
      this.at++;
      return this.primaryOf(token);
    });
  }

  protected primaryOf(token: Token): Expr {
    switch (token.t) {
      case "num":
        return this.number(token.v);
      case "letter":
        return this.letter(token.v);
      case "text":
        return { k: "text", text: token.v };
      case "word":
        return this.word(token);
      case "cmd":
        return this.command(token.v);
      default:
        return this.bracket(token.v);
    }
  }

  /** 0.1\overline{6}: a repeating decimal is exact. */
  protected number(text: string): Expr {
    if (!text.includes(".") && this.is("cmd", "overline")) return parseNumber(text);
    if (!this.take("cmd", "overline")) return parseNumber(text);
    this.expect("op", "{");
    const digits = this.tokens[this.at++]?.v ?? "";
    this.expect("op", "}");
    if (!/^\d{1,40}$/.test(digits)) this.fail("repeating digits");
    const fraction = text.split(".")[1] ?? "";
    const all = BigInt(text.replace(".", "") + digits) - BigInt(text.replace(".", "") || "0");
    return num(all, 10n ** BigInt(fraction.length) * (10n ** BigInt(digits.length) - 1n));
  }

  protected letter(name: string): Expr {
    if (!this.bound.has(name)) {
      if (name === "e" && !this.is("op", "_")) return { k: "const", name: "e" };
      if (name === "i" && !this.is("op", "_")) return COMPLEX_I;
    }
    if (CALLED.has(name) && this.is("op", "(") && !this.peek()!.gap) {
      this.at++;
      const inner = this.list(() => this.is("op", ")"));
      this.expect("op", ")");
      return call(name, ...(inner.k === "set" && !inner.braces ? inner.items : [inner]));
    }
    return { k: "sym", name };
  }

  protected word(token: Token): Expr {
    if (token.v === "pi") return { k: "const", name: "pi" };
    if (token.v === "infty" || token.v === "inf" || token.v === "infinity") return INFINITY;
    const joined = /^(sin|cos|tan|cot|sec|csc|ln|log)([a-z])$/.exec(token.v);
    if (joined !== null) return call(joined[1]!, { k: "sym", name: joined[2]! });
    if (["and", "or", "in", "union", "percent", "percentage", "pct"].includes(token.v)) this.fail("an expression");
    // A word of prose is no product of its letters; capitals name points.
    if (token.v.length > 3 && !/^[A-Z]+$/.test(token.v)) return { k: "text", text: token.v };
    this.at--;
    this.spell(token);
    return this.primary();
  }

  protected command(name: string): Expr {
    if (FUNCTIONS.has(name) && name !== "sqrt") return this.function(name);
    switch (name) {
      case "frac": {
        const a = this.argument(true);
        return { k: "div", a, b: this.argument(true) };
      }
      case "sqrt":
        return this.root();
      case "binom": {
        const n = this.argument(true);
        return call("binom", n, this.argument(true));
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
        return this.argument();
      case "mathbb":
      case "R":
      case "Z":
        return this.numberSet(name);
      case "begin":
        return this.environment();
      case "lfloor":
      case "lceil":
        return this.between(name === "lfloor" ? "rfloor" : "rceil", name === "lfloor" ? "floor" : "ceil");
      case "sum":
      case "prod":
        return this.bigOperator(name);
      case "pmod":
        this.argument();
        return num(1);
      default:
        if (ACCENTS.has(name)) return this.accent(name);
        if (!/^[a-zA-Z]+$/.test(name) || Object.hasOwn(RELATIONS, name) || UNREAD.has(name)) this.fail("an expression");
        return { k: "sym", name };
    }
  }

  protected accent(name: string): Expr {
    const start = this.at;
    this.argument();
    const inside = this.tokens.slice(start, this.at).map(({ v }) => v);
    return { k: "sym", name: `${name}:${inside.filter((v) => v !== "{" && v !== "}").join("")}` };
  }

  protected numberSet(name: string): Expr {
    const letter = name === "mathbb" ? this.argument() : ({ k: "sym", name } as const);
    if (letter.k === "sym" && letter.name === "R") return REALS;
    return { k: "sym", name: `mathbb:${letter.k === "sym" ? letter.name : "?"}` };
  }

  protected between(close: string, name: string): Expr {
    const inner = this.sum();
    this.expect("cmd", close);
    return call(name, inner);
  }

  protected root(): Expr {
    let index: Expr = num(2);
    if (this.take("op", "[")) {
      index = this.sum();
      this.expect("op", "]");
    }
    return { k: "pow", a: this.argument(), b: { k: "div", a: num(1), b: index } };
  }

  protected bracket(open: string): Expr {
    if (open === "{") {
      this.at--;
      return this.braced();
    }
    if (open === "\\{") return this.braces();
    if (open === "|") {
      this.bars++;
      const inner = this.sum();
      this.bars--;
      this.expect("op", "|");
      return call("abs", inner);
    }
    if (open !== "(" && open !== "[") {
      this.at--;
      this.fail("an expression");
    }
    return this.parenthesised(open);
  }

  /** {1, 2} lists a set, {x : x > 2} says which numbers it has. */
  protected braces(): Expr {
    if (this.take("op", "\\}")) return { k: "set", items: [], braces: true };
    const done = () => this.is("op", "\\}") || this.is("cmd", "mid");
    const inner = this.list(done);
    const condition = this.take("cmd", "mid") ? this.list(done) : behindColon(inner);
    this.expect("op", "\\}");
    if (condition !== undefined) return { k: "where", condition };
    return { k: "set", items: inner.k === "set" && !inner.braces ? inner.items : [inner], braces: true };
  }

  protected parenthesised(open: "(" | "["): Expr {
    const bars = this.bars;
    this.bars = 0;
    const inner = this.list(() => this.is("op", ")") || this.is("op", "]"));
    this.bars = bars;
    const close = this.take("op", ")") ? ")" : this.take("op", "]") ? "]" : this.fail(") or ]");
    const items = inner.k === "set" && !inner.braces ? inner.items : [inner];
    if (items.length === 1 && (open === "(") === (close === ")")) return items[0]!;
    return { k: "tuple", items, open, close };
  }
}
