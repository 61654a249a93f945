/** LaTeX and plain text to tokens, with the sloppiness of language models taken into account. Linear time. */

export interface Token {
  readonly t: "num" | "letter" | "cmd" | "word" | "text" | "op";
  readonly v: string;
  /** White space stood before it. */
  readonly gap: boolean;
}

/** Said nothing by themselves: size, spacing, style. */
const DROPPED = new Set(
  "left right middle big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits nolimits mathstrut strut , ; : ! quad qquad hfill nonumber".split(
    " ",
  ),
);
const ALIASES: Readonly<Record<string, string>> = {
  dfrac: "frac", tfrac: "frac", cfrac: "frac", dbinom: "binom", tbinom: "binom", le: "leq", leqslant: "leq", ge: "geq",
  geqslant: "geq", ne: "neq", lt: "<", gt: ">", times: "*", cdot: "*", ast: "*", div: "/", land: "and", lor: "or", wedge: "and",
  vee: "or", lbrace: "{", rbrace: "}", lbrack: "[", rbrack: "]", "{": "{", "}": "}", infin: "infty", degree: "circ", vert: "|",
  lvert: "|", rvert: "|", "|": "|", setminus: "setminus", backslash: "setminus", varnothing: "emptyset", arctg: "arctan",
  tg: "tan", ctg: "cot", cosec: "csc", colon: ":", ratio: ":", percent: "%", "%": "%", lfloor: "lfloor", dots: "ldots",
  cdots: "ldots", dotsc: "ldots", simeq: "approx", thickapprox: "approx", cong: "approx", sim: "approx", equiv: "=",
  varepsilon: "epsilon", varphi: "phi", vartheta: "theta", exponentialE: "e", imaginaryI: "i", notin: "notin",
}; // biome-ignore format: a table
const UNICODE: Readonly<Record<string, string>> = {
  "−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/", "≤": "\\leq ", "⩽": "\\leq ", "≥": "\\geq ",
  "⩾": "\\geq ", "≠": "\\neq ", "≈": "\\approx ", "±": "\\pm ", "∞": "\\infty ", "√": "\\sqrt ", "∪": "\\cup ", "∩": "\\cap ",
  "∈": "\\in ", "∅": "\\emptyset ", "°": "^{\\circ}", "²": "^{2}", "³": "^{3}", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}",
  "¾": "\\frac{3}{4}", "π": "\\pi ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "θ": "\\theta ",
  "λ": "\\lambda ", "μ": "\\mu ", "φ": "\\phi ", "ω": "\\omega ", "ρ": "\\rho ", "σ": "\\sigma ", "ε": "\\epsilon ", "ℝ": "\\R ",
  "\u00a0": " ", "\u2009": " ", "\u202f": " ", "％": "%", "，": ",", "（": "(", "）": ")", "：": ":", "＝": "=",
}; // biome-ignore format: a table
/** Commands of which `\\name` with a doubled backslash is a mistake of escaping, not a line break. */
const DOUBLED =
  /(?<!\\)\\\\(?=(?:d?frac|tfrac|left|right|sqrt|boxed|text|mathrm|pi|cdot|times|leq?|geq?|neq?|infty|cup|cap|in|pm|sin|cos|tan|log|ln|circ|quad|begin|end|alpha|beta|theta|lambda|mathbb|[%{}$])(?![a-z]))/g;
const TEXT_COMMANDS = new Set(["text", "textbf", "textit", "textnormal", "textrm", "mbox", "hbox", "mathrm", "mathbf", "mathit", "operatorname", "mathsf", "emph", "rm", "bf"]); // biome-ignore format: a table
export const FUNCTIONS = new Set("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh asin acos atan log ln lg exp sqrt abs max min gcd lcm det deg floor ceil".split(" ")); // biome-ignore format: a table
const WORDS = new Set([...FUNCTIONS, "and", "or", "pi", "infty", "inf", "infinity", "percent", "percentage", "pct", "in", "union"]); // biome-ignore format: a table

/** Whether a run of letters is a function, a constant or a joining word rather than prose or a product. */
export const isMathWord = (word: string): boolean => WORDS.has(word.toLowerCase());

/** Spellings of one number to one: 14{,}916, 14\,916, 14,\!916, 1_000. Unicode and doubled backslashes to plain LaTeX. */
function clean(source: string): string {
  return source
    .replace(/[^\x20-\x7e]/gu, (c) => UNICODE[c] ?? c)
    .replace(DOUBLED, "\\")
    .replace(/(\d)\s{0,2}\{\s{0,2},\s{0,2}\}\s{0,2}(?=\d{3})/g, "$1")
    .replace(/(\d),?\\[!,;: ]\s{0,2}(?=\d{3}(?!\d))/g, "$1")
    .replace(
      /^\s*(-?\d{1,3})((?: \d{3}){1,8})(\.\d+)?\s*$/,
      (_, head: string, rest: string, tail: string | undefined) => head + rest.replaceAll(" ", "") + (tail ?? ""),
    )
    .replace(/\\\$|\$|[€£¥₹₽₩]/g, " ")
    .replace(/\\(?:phantom|hspace|vspace|label|tag)\s{0,2}\*?\{[^{}]*\}/g, " ");
}

/** The end of the brace group that opens at `open`, past the brace. */
function groupEnd(s: string, open: number): number {
  let depth = 0;
  for (let i = open; i < s.length; i++) {
    if (s[i] === "\\") i++;
    else if (s[i] === "{") depth++;
    else if (s[i] === "}" && --depth === 0) return i + 1;
  }
  return -1;
}

class Lexer {
  readonly tokens: Token[] = [];
  #i = 0;
  #gap = false;
  #depth = 0;
  readonly #s: string;

  constructor(source: string) {
    this.#s = clean(source);
  }

  #push(t: Token["t"], v: string): void {
    this.tokens.push({ t, v, gap: this.#gap });
    this.#gap = false;
  }

  run(): Token[] {
    while (this.#i < this.#s.length) {
      const c = this.#s[this.#i]!;
      if (/[\s~]/.test(c)) this.#space();
      else if (/[\d.]/.test(c) && this.#number()) continue;
      else if (c === "\\") this.#command();
      else if (/[a-z]/i.test(c)) this.#letters();
      else this.#operator(c);
    }
    return this.tokens;
  }

  #space(): void {
    this.#i++;
    this.#gap = true;
  }

  /** Thousands separators count outside brackets only: (1,234) is a pair. */
  #number(): boolean {
    const rest = this.#s.slice(this.#i, this.#i + 400);
    const grouped = this.#depth === 0 ? /^\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?/.exec(rest) : null;
    const match = grouped ?? /^(?:\d+\.(?=\s?\\overline)|\d+(?:\.\d+)?|\.\d+)/.exec(rest);
    if (match === null) return false;
    this.#push("num", match[0].replaceAll(",", ""));
    this.#i += match[0].length;
    // A point that ends a sentence.
    if (this.#s[this.#i] === "." && !/\d/.test(this.#s[this.#i + 1] ?? "")) this.#i++;
    return true;
  }

  #command(): void {
    const rest = this.#s.slice(this.#i + 1, this.#i + 41);
    let name = /^(?:[a-zA-Z]+|[\s\S])/.exec(rest)?.[0] ?? "";
    this.#i += 1 + name.length;
    if (name === "\\") {
      this.#push("cmd", "newline");
      return;
    }
    if (name.trim() === "") {
      this.#gap = true;
      return;
    }
    // \quadx: the space and the x ran together.
    const stuck = /^(qquad|quad)(.+)$/.exec(name);
    if (stuck !== null) {
      this.#i -= stuck[2]!.length;
      name = stuck[1]!;
    }
    if (TEXT_COMMANDS.has(name)) {
      this.#text(name);
      return;
    }
    if (DROPPED.has(name)) {
      if (this.#s[this.#i] === ".") this.#i++;
      this.#gap = true;
      return;
    }
    if (name === "{") this.#depth++;
    if (name === "}") this.#depth--;
    const alias = ALIASES[name] ?? name;
    if (name === "{" || name === "}" || name === "lbrace" || name === "rbrace")
      this.#push("op", alias === "{" ? "\\{" : "\\}");
    else this.#push(/^[a-zA-Z]+$/.test(alias) ? (alias === "and" || alias === "or" ? "word" : "cmd") : "op", alias);
  }

  /** \text{...}: words, a unit, or letters and functions set upright. */
  #text(name: string): void {
    const start = this.#s.slice(this.#i).search(/\S/) + this.#i;
    if (this.#s[start] !== "{") return;
    const end = groupEnd(this.#s, start);
    if (end < 0) return;
    const inner = this.#s.slice(start + 1, end - 1).trim();
    this.#i = end;
    const upright = name.startsWith("math") || name === "operatorname";
    if (/^(?:,?\s*and|,?\s*or|,|;)$/.test(inner)) this.#push("word", /or$/.test(inner) ? "or" : "and");
    else if (FUNCTIONS.has(inner)) this.#push("cmd", inner);
    else if (upright && /^[a-zA-Z]$/.test(inner) && !this.#afterValue(inner)) this.#push("letter", inner);
    else if (/^-?[\d.,]+$/.test(inner)) this.tokens.push(...new Lexer(inner).run());
    else if (inner !== "") this.#push("text", inner);
    this.#gap = true;
  }

  /** 12\,\mathrm{m} has a unit; 2\mathrm{e} and \mathrm{P} have none. */
  #afterValue(letter: string): boolean {
    const last = this.tokens.at(-1);
    return letter !== "e" && letter !== "i" && (last?.t === "num" || last?.v === "}");
  }

  #letters(): void {
    const run = /^[a-zA-Z]+/.exec(this.#s.slice(this.#i, this.#i + 60))![0];
    const glued = /^(or|and)(?=[A-Z])/.exec(run)?.[1];
    const word = glued ?? (run.length > 1 && /^[a-zA-Z]+$/.test(run) ? run : undefined);
    if (word !== undefined && (WORDS.has(word) || WORDS.has(word.toLowerCase()))) {
      this.#push(FUNCTIONS.has(word) ? "cmd" : "word", word.toLowerCase());
      this.#i += word.length;
    } else if (run.length > 1) {
      this.#push("word", run);
      this.#i += run.length;
    } else {
      this.#push("letter", run);
      this.#i++;
    }
  }

  #operator(c: string): void {
    const two = this.#s.slice(this.#i, this.#i + 2);
    const long = ["<=", ">=", "!=", "==", "**", "=<"].includes(two) ? two : c;
    this.#i += long.length;
    if ("([".includes(c)) this.#depth++;
    else if (")]".includes(c)) this.#depth--;
    const same: Readonly<Record<string, string>> = { "==": "=", "=<": "<=", "**": "^", "!=": "neq" };
    this.#push(long === "!=" ? "cmd" : "op", same[long] ?? long);
  }
}

export function tokenize(source: string): Token[] {
  return new Lexer(source).run();
}
