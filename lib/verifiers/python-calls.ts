/** Calls of tools as Python writes them: weather(city="Bern", days=[1, 2]), one a line or in a list. */

/** A call by its name, with arguments by theirs. */
export interface PythonCall {
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** Of values inside one another; what nests deeper no tool asks for, and may end the stack. */
const MOST_LEVELS = 64;

const NUMBER = /[-+]?(?:\d[\d_]*)?\.?\d+(?:[eE][-+]?\d+)?/y;
const NAME = /[A-Za-z_][\w.-]*/y;
const SPACE = /\s*/y;
const WORDS: Readonly<Record<string, unknown>> = {
  True: true,
  False: false,
  None: null,
  true: true,
  false: false,
  null: null,
};
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", "\n": "" };

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  /** What a pattern finds here; undefined: nothing. */
  private take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }

  private fail(expected: string): never {
    const rest = this.text.slice(this.at, this.at + 20);
    throw new Error(`expected ${expected} but found ${rest === "" ? "the end" : JSON.stringify(rest)}`);
  }

  /** Whether these characters come next, which are then read. */
  private accept(text: string): boolean {
    this.take(SPACE);
    if (!this.text.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }

  private expect(text: string): void {
    if (!this.accept(text)) this.fail(JSON.stringify(text));
  }

  /** What stands between commas, up to the closing character, which is read. */
  private list(close: string, item: () => void): void {
    while (!this.accept(close)) {
      item();
      if (this.accept(close)) return;
      this.expect(",");
    }
  }

  private string(quote: string): string {
    let out = "";
    for (;;) {
      const char = this.text[this.at++];
      if (char === undefined) this.fail(`${quote} at the end of a text`);
      if (char === quote) return out;
      if (char !== "\\") out += char;
      else out += this.escaped(this.text[this.at++] ?? "");
    }
  }

  private escaped(char: string): string {
    if (char !== "u" && char !== "x") return ESCAPES[char] ?? char;
    const digits = this.take(char === "u" ? /[\da-fA-F]{4}/y : /[\da-fA-F]{2}/y);
    return digits === undefined ? this.fail("hexadecimal digits") : String.fromCharCode(Number.parseInt(digits, 16));
  }

  private value(levels: number): unknown {
    if (levels === 0) this.fail(`no more than ${MOST_LEVELS} levels`);
    for (const quote of ['"', "'"]) if (this.accept(quote)) return this.string(quote);
    if (this.accept("[")) return this.items("]", levels);
    if (this.accept("(")) return this.items(")", levels);
    if (this.accept("{")) return this.entries(levels);
    const digits = this.take(NUMBER);
    if (digits !== undefined) return Number(digits.replaceAll("_", ""));
    const word = this.take(NAME);
    if (word !== undefined && Object.hasOwn(WORDS, word)) return WORDS[word];
    return this.fail("a text, a number, True, False, None, a list or a dict");
  }

  private items(close: string, levels: number): unknown[] {
    const out: unknown[] = [];
    this.list(close, () => out.push(this.value(levels - 1)));
    return out;
  }

  private entries(levels: number): Record<string, unknown> {
    const out: [string, unknown][] = [];
    this.list("}", () => {
      const name = this.value(levels - 1);
      this.expect(":");
      out.push([String(name), this.value(levels - 1)]);
    });
    return Object.fromEntries(out);
  }

  private call(): PythonCall {
    this.take(SPACE);
    const name = this.take(NAME) ?? this.fail("the name of a function");
    this.expect("(");
    const given: [string, unknown][] = [];
    this.list(")", () => {
      this.take(SPACE);
      const argument = this.take(NAME) ?? this.fail("an argument's name");
      this.expect("=");
      given.push([argument, this.value(MOST_LEVELS)]);
    });
    return { name, arguments: Object.fromEntries(given) };
  }

  /** All of the text: a list of calls, or one a line. */
  calls(): PythonCall[] {
    const out: PythonCall[] = [];
    if (this.accept("[")) this.list("]", () => out.push(this.call()));
    else while (this.rest() !== "") out.push(this.call());
    if (this.rest() !== "") this.fail("the end");
    return out;
  }

  private rest(): string {
    this.take(SPACE);
    return this.text.slice(this.at);
  }
}

/** The calls that are all of a text; throws, with what was expected and what came, where it is anything else. */
export const pythonCalls = (text: string): PythonCall[] => new Reader(text).calls();
