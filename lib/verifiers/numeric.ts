/** One number, compared with a tolerance. For fractions of surds and the like use "math". */
import { define, noAnswer, type Row } from "./definition.js";
import { type Extracted, finalAnswer, goldStatement, unwrap } from "./extract.js";
import { flag, number, optional, rowError, text } from "./options.js";

const readers = {
  /** Field with the right number, a text that is one, or a worked solution that ends in a box or in "#### 5". */
  answer: text("answer"),
  /** Accept only an answer inside this tag. */
  tag: optional(text()),
  /** Right when |x - gold| <= max(absolute, relative * |gold|). */
  absolute: number(1e-9, 0),
  relative: number(1e-6, 0),
  /** Full reward within the tolerance, then linearly less, 0 at `graded` times the tolerance. Default: right or wrong. */
  graded: optional(number(undefined, 1)),
  /** Read 25% as 0.25. When false the sign is ignored and 25% is 25. */
  percent: flag(true),
};

const NUMBER =
  /[-+−]?\s{0,2}(?:0x[\da-f]+\b|\d{1,3}(?:(?:,\\?!?\s?|\s|\{,\}|_)\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:\s{0,2}(?:e|\\?(?:times|cdot|×|\*)\s{0,2}10\s{0,2}\^)\s{0,2}\{?[-+−]?\d{1,4}\}?)?/gi;

/** The value of one matched number. */
function value(matched: string): number {
  const plain = matched
    .replace(/−/g, "-")
    .replace(/\s{0,2}\\?(?:times|cdot|×|\*)\s{0,2}10\s{0,2}\^\s{0,2}/, "e")
    .replace(/\{,\}|\\!|[,\s_{}]/g, "");
  const sign = plain.startsWith("-") ? -1 : 1; // JavaScript knows no signed hexadecimal number
  return sign * Number(plain.replace(/^[-+]/, ""));
}

/** Every number of a text, with fractions `3/4` and `\frac{3}{4}` as one, and percentages where asked. */
export function numbersIn(said: string, percent: boolean): number[] {
  const plain = said.slice(0, 4000).replace(/\\[dtc]?frac\s{0,2}\{([^{}]+)\}\s{0,2}\{([^{}]+)\}/g, "$1/$2");
  const found: { at: number; end: number; x: number }[] = [];
  NUMBER.lastIndex = 0;
  for (const match of plain.matchAll(NUMBER)) {
    const previous = found.at(-1);
    const between = previous === undefined ? "" : plain.slice(previous.end, match.index);
    const end = match.index + match[0].length;
    if (previous !== undefined && /^\s{0,2}\/\s{0,2}$/.test(between)) {
      previous.x /= value(match[0]);
      previous.end = end;
    } else found.push({ at: match.index, end, x: value(match[0]) });
  }
  for (const one of found) {
    if (percent && /^\s{0,2}(?:\\?%|percent\b|pct\b)/i.test(plain.slice(one.end, one.end + 10))) one.x /= 100;
  }
  return found.map((one) => one.x);
}

/** A box or a tag must hold one number; after "the answer is" the first counts, in a closing line the last. */
function numberOf(said: Extracted, percent: boolean): number | undefined {
  const all = numbersIn(unwrap(said.text), percent);
  if (said.from === "phrase") return all[0];
  if (said.from === "last line") return all.at(-1);
  return all.length === 1 ? all[0] : undefined;
}

export const numeric = define({
  type: "numeric",
  summary: "one number, with absolute and relative tolerance",
  where: "inline",
  readers,
  create(options) {
    const gold = (row: Row) => {
      const given = row[options.answer];
      if (typeof given === "number") return given;
      if (typeof given === "bigint") return Number(given);
      if (typeof given !== "string") return undefined;
      const all = numbersIn(goldStatement(given), options.percent);
      return all.length === 1 ? all[0] : undefined;
    };
    return {
      check(row) {
        if (!Number.isFinite(gold(row))) throw rowError("numeric", options.answer, "one number", row[options.answer]);
      },
      judge({ completion, row }) {
        const expected = gold(row);
        if (expected === undefined || !Number.isFinite(expected)) return { reward: null, reason: "gold" };
        const said = finalAnswer(completion, options.tag, true);
        if (said === undefined) return noAnswer(expected);
        const x = numberOf(said, options.percent);
        const detail = { extracted: x ?? null, said: said.text.slice(0, 200), from: said.from, expected };
        if (x === undefined || !Number.isFinite(x)) return { reward: 0, reason: "no-answer", detail };
        const tolerance = Math.max(options.absolute, options.relative * Math.abs(expected));
        const error = Math.abs(x - expected);
        if (error <= tolerance) return { reward: 1, detail };
        if (options.graded === undefined || tolerance === 0) return { reward: 0, detail };
        return {
          reward: Math.max(0, (options.graded - error / tolerance) / Math.max(options.graded - 1, 1e-12)),
          detail,
        };
      },
    };
  },
});
