/** Final answers of mathematics. See docs/verifiers.md for what counts as equal. */
import { define, noAnswer, type Row } from "./definition.js";
import type { Expr } from "./math/ast.js";
import { some } from "./math/ast.js";
import { type CompareOptions, Comparer } from "./math/compare.js";
import { MathSyntaxError } from "./math/cursor.js";
import { goldAnswer, type Stated, statedAnswer } from "./math/extract.js";
import { parseMath } from "./math/parse.js";
import type { Decision } from "./math/scalar.js";
import { loadAlgebra } from "./math/symbolic.js";
import { flag, integer, optional, rowError, text } from "./options.js";
import type { Verdict } from "./verifier.js";

const readers = {
  /** Field with the right answer: LaTeX, plain text, a number, or a worked solution that ends in a box or in "#### 5". */
  answer: text("answer"),
  /** Accept only an answer inside this tag; default: the last box, "the answer is", the last formula or number. */
  tag: optional(text()),
  /** Places after the point to which decimals must agree with the right answer. */
  decimals: integer(6, 0, 14),
  /** Accept `-2 <= x <= 7` where the right answer is [-2, 7]. */
  inequalityForSet: flag(false),
  /** An answer longer than this is no final answer. */
  maxLength: integer(1000, 1, 10_000),
  /** Keep rows whose right answer cannot be read; then only the very same words are right and everything else is undecided. */
  allowUnreadable: flag(false),
};

/** What a text says, as an expression or, where it is no formula, as words. */
interface Answer {
  readonly stated: Stated;
  readonly source: string;
  /** Readings in order of likelihood; empty where it cannot be read. */
  readonly readings: readonly Expr[];
}

/** Words, spacing and typography that change nothing, taken off; letters keep their case unless they are a word. */
function wordKey(source: string): string {
  const plain = source
    .replace(/\\(?:text|textbf|textit|textnormal|textrm|mbox|mathrm|mathbf|operatorname)\s{0,2}\{([^{}]*)\}/g, "$1")
    .replace(/\\(?:left|right|displaystyle|,|;|!|:|\s)|[\s$~]/g, "")
    .replace(/[.,;]+$/, "")
    .replace(/^\(([A-Za-z]+)\)$/, "$1");
  return /^[a-zA-Z]{2,}$/.test(plain) ? plain.toLowerCase() : plain;
}

function tryParse(source: string): Expr | undefined {
  try {
    return parseMath(source);
  } catch (error) {
    if (error instanceof MathSyntaxError) return undefined;
    throw error;
  }
}

/** Several statements are one list. */
function combined(sources: readonly string[]): Expr | undefined {
  const read = sources.map(tryParse);
  if (!read.every((one) => one !== undefined)) return undefined;
  if (read.length === 1) return read[0];
  return {
    k: "set",
    braces: false,
    items: read.flatMap((one) => (one.k === "set" && !one.braces ? one.items : [one])),
  };
}

function readAnswer(stated: Stated): Answer {
  const readings = [stated.sources, ...(stated.others ?? [])].map(combined).filter((one) => one !== undefined);
  return { stated, source: stated.sources.join(", "), readings };
}

/** A right answer that leaves nothing open: whoever cannot be read beside it has not given it. */
const isClosed = (e: Expr) => !some(e, (part) => part.k === "sym" || part.k === "rel" || part.k === "text");

async function compareAnswers(
  gold: Answer,
  given: Answer,
  options: CompareOptions,
): Promise<{ readonly equal: Decision; readonly by: string }> {
  const key = wordKey(given.source);
  if (key !== "" && wordKey(gold.source) === key) return { equal: true, by: "form" };
  const comparer = new Comparer(options);
  let undecided = gold.readings.length === 0 || (given.readings.length === 0 && !gold.readings.every(isClosed));
  for (const right of gold.readings) {
    for (const answer of given.readings) {
      const equal = await comparer.equal(right, answer);
      if (equal === true) return { equal, by: comparer.by };
      undecided ||= equal === null;
    }
  }
  return { equal: undecided ? null : false, by: given.readings.length === 0 ? "unreadable" : comparer.by };
}

/** The right answer of a row; undefined where there is none. */
function readGold(value: unknown): Answer | undefined {
  const given = typeof value === "number" || typeof value === "bigint" ? String(value) : value;
  if (typeof given !== "string" || given.trim() === "") return undefined;
  const stated = goldAnswer(given);
  return stated && readAnswer(stated);
}

function readGiven(completion: string, tag?: string): Answer | undefined {
  const stated = statedAnswer(completion, tag);
  return stated && readAnswer(stated);
}

export const math = define({
  type: "math",
  summary: "final answers of mathematics: numbers, fractions, units, intervals, sets, tuples, equations, expressions",
  where: "worker",
  readers,
  create(options) {
    const cache = new Map<string, Answer | undefined>();
    const gold = (row: Row): Answer | undefined => {
      const key = String(row[options.answer]);
      if (!cache.has(key)) {
        // The samples of a group share a row; older ones are not asked for again soon.
        if (cache.size >= 256) cache.clear();
        cache.set(key, readGold(row[options.answer]));
      }
      return cache.get(key);
    };
    return {
      check(row) {
        const right = gold(row);
        const readable = right !== undefined && (right.readings.length > 0 || options.allowUnreadable);
        if (!readable) throw rowError("math", options.answer, "an answer in LaTeX or plain text", row[options.answer]);
      },
      prepare: async () => void (await loadAlgebra()),
      async judge({ completion, row }): Promise<Verdict> {
        const right = gold(row);
        if (right === undefined) return { reward: null, reason: "gold" };
        const given = readGiven(completion, options.tag);
        if (given === undefined) return noAnswer(right.source);
        const detail = { extracted: given.source.slice(0, 500), from: given.stated.from, expected: right.source };
        if (given.source.length > options.maxLength) return { reward: 0, reason: "too-long", detail };
        const { equal, by } = await compareAnswers(right, given, options);
        if (equal === null) return { reward: null, reason: "undecided", detail: { ...detail, by } };
        return { reward: equal ? 1 : 0, detail: { ...detail, by } };
      },
    };
  },
});
