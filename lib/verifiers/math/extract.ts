/**
 * Where a text states its final answer, and what stands there. The place is chosen by its position and its words, never by
 * what would be right. Everything here is linear in the text.
 */
import { answerStart, boxes, type Extracted, goldStatement, lastPhrase, lastTag, unwrap } from "../extract.js";
import { isMathWord } from "./tokens.js";
import { isUnitWord } from "./units.js";

export interface Stated {
  /** Expressions without delimiters; several when an answer is spread over several boxes or formulas. */
  readonly sources: readonly string[];
  readonly from: Extracted["from"] | "formula" | "number";
  /** Further readings of the same words, less likely ones later: 1,2 may be a list or a decimal. */
  readonly others?: readonly (readonly string[])[];
}

interface Formula {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

const DELIMITERS: readonly (readonly [open: string, close: string, inline: boolean])[] = [
  ["$$", "$$", false],
  ["\\[", "\\]", false],
  ["\\(", "\\)", true],
  ["$", "$", true],
];

/** Next `close` at or after `from`, not behind a backslash; for inline formulas on the same line. -1: none. */
function closing(text: string, close: string, from: number, limit: number): number {
  for (let at = text.indexOf(close, from); at >= 0 && at <= limit; at = text.indexOf(close, at + 1)) {
    if (close[0] === "\\" || text[at - 1] !== "\\") return at;
  }
  return -1;
}

/** Longest formula that is looked at. */
const MAX_FORMULA = 4000;

/** Every formula between delimiters, in order. */
function formulas(text: string, from = 0): Formula[] {
  const found: Formula[] = [];
  for (let i = from; i < text.length; i++) {
    const c = text[i];
    if (c !== "$" && c !== "\\") continue;
    const delimiter = DELIMITERS.find(([open]) => text.startsWith(open, i));
    if (delimiter === undefined) {
      i++;
      continue;
    }
    const [open, close, inline] = delimiter;
    const start = i + open.length;
    const line = inline ? text.slice(start, start + MAX_FORMULA).indexOf("\n") : -1;
    const end = closing(text, close, start, line < 0 ? start + MAX_FORMULA : start + line);
    if (end < 0 || end === start) continue;
    found.push({ text: text.slice(start, end), start: i, end: end + close.length });
    i = end + close.length - 1;
  }
  return found;
}

/** What may stand between two statements of one answer: punctuation, and, or, a few words before them. */
const JOINED =
  /^(?:[\s,;.&]|\\[()[\],;: ]|\$|\\q?quad)*(?:(?:\\text\s?\{)?\s{0,2}(?:[\w()]{1,12}\s{1,2}){0,4}(?:and|or)\s{0,2}\}?)?(?:[\s,;&]|\\[()[\],;: ]|\$|\\q?quad)*(?:[a-zA-Z](?:_\{?\w\}?)?\s{0,2}=\s{0,2})?$/;
const MAX_JOIN = 60;

/** The last statement and those that directly precede it as parts of one list. */
function joinedTail<T extends { readonly start: number; readonly end: number }>(text: string, all: readonly T[]): T[] {
  let first = all.length - 1;
  while (first > 0) {
    const between = text.slice(all[first - 1]!.end, all[first]!.start);
    if (between.length > MAX_JOIN || between.includes("\n\n") || !JOINED.test(between)) break;
    first--;
  }
  return all.slice(Math.max(0, first));
}

const PERCENT = /^\s{0,3}\$?\s{0,3}(?:\\?%|percent(?:age)?\b|pct\b)/i;
const percentAfter = (text: string, at: number) => (PERCENT.test(text.slice(at, at + 24)) ? "\\%" : "");

const UNITS = "(?:\\s{0,2}(?:\\\\?%|percent(?:age)?\\b|pct\\b))?";
/** What may follow a number as part of it: 2/3, 10^5, 3 × 10^8. Not + and -, which prose uses for ranges and lists. */
const POWERS = "(?:(?:\\s{0,2}[/×·]\\s{0,2}|\\^|\\*(?!\\*))\\(?[-−]?\\d+(?:\\.\\d+)?\\)?){0,20}";
const NUMBER = new RegExp(
  `(?<![\\w.\\\\^_{])[-+−]?(?:\\d{1,3}(?:[, ]\\d{3})+(?!\\d)(?:\\.\\d+)?|\\d+(?:[.,]\\d+)?|\\.\\d+)${POWERS}${UNITS}|\\\\[dt]?frac\\{[^{}]{1,60}\\}\\{[^{}]{1,60}\\}`,
  "g",
);

/** A number of prose as LaTeX: 1 000 and 1,000 are a thousand, 2,74 is 2.74. */
function proseNumber(found: string): string {
  const sign = found.trim().replace(/^−/, "-");
  const plain = /^[-+]?[1-9]\d{0,2}(?:[, ]\d{3})+(?!\d)/.test(sign)
    ? sign.replace(/^([-+]?)([\d, ]+\d)/, (_, s: string, digits: string) => s + digits.replace(/[, ]/g, ""))
    : sign.replace(/^([-+]?\d+),(\d+)/, "$1.$2");
  return plain.replace(/\s{0,2}(?:\\?%|percent(?:age)?|pct)$/i, "\\%");
}

function numbers(text: string, from = 0): Formula[] {
  return [...text.slice(from).matchAll(NUMBER)].map((match) => ({
    text: proseNumber(match[0]),
    start: from + match.index,
    end: from + match.index + match[0].length,
  }));
}

const FINAL = /\bfinal\s{1,3}answer\b/gi;
const ANSWER = /\b(?:answer|result|solution)s?\b|####/gi;
const REACH = 400;

function lastIndex(text: string, pattern: RegExp, from: number): number {
  let at = -1;
  pattern.lastIndex = from;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) at = match.index + match[0].length;
  return at;
}

/** Formulas outside numbers, and numbers outside formulas, by position. */
function mixed(text: string): (Formula & { readonly formula: boolean })[] {
  const inside = formulas(text);
  const outside = numbers(text).filter((one) => !inside.some((f) => one.start < f.end && one.end > f.start));
  return [...inside.map((f) => ({ ...f, formula: true })), ...outside.map((n) => ({ ...n, formula: false }))].sort(
    (a, b) => a.start - b.start,
  );
}

/** What ends the sentence that announces an answer. */
const STOP = /I hope|\n|<\||[.!?]\s{1,3}[A-Z(]/;
/** Between the announcement's verb and an answer that directly follows it. */
const FILLER = /^(?:[^\p{L}]|\b(?:about|approximately|equal|exactly|just|simply|therefore|thus|to)\b){0,60}$/u;

/**
 * The answer that a sentence announces: what directly follows its first "is", ":" or "="; else what follows the last one, as
 * in "Answer: the area of $ABC$ is 12"; else the first formula or number in it.
 */
function announced(text: string, at: number): Stated | undefined {
  const body = text.slice(at, at + REACH);
  const lead = /^[\s*_]{0,20}:?[\s*_]{0,20}/.exec(body)?.[0].length ?? 0;
  const stop = body.slice(lead).search(STOP);
  const sentence = stop < 0 ? body : body.slice(0, lead + stop);
  const all = mixed(sentence);
  if (all.length === 0) return undefined;
  const verbs = [...sentence.matchAll(/\b(?:is|are|equals|be)\b|[:=]/g)]
    .map((match) => ({ start: match.index, end: match.index + match[0].length }))
    .filter((verb) => !all.some((one) => verb.start >= one.start && verb.start < one.end))
    .filter((verb) => all.some((one) => one.start >= verb.end));
  const after = (verb: { readonly end: number } | undefined) => all.findIndex((one) => one.start >= (verb?.end ?? 0));
  const direct = verbs[0] !== undefined && FILLER.test(sentence.slice(verbs[0].end, all[after(verbs[0])]!.start));
  const first = after(direct ? verbs[0] : verbs.at(-1));
  const chosen = all[first]!;
  if (!chosen.formula) return { sources: [chosen.text], from: "phrase" };
  const run = all.slice(first).filter((one) => one.formula);
  const joined = joinedHead(sentence, run);
  return { sources: withPercent(sentence, joined), from: "phrase" };
}

/** The first formula and those that directly follow it as parts of one list. */
function joinedHead(text: string, all: readonly Formula[]): Formula[] {
  let last = 0;
  while (last + 1 < all.length) {
    const between = text.slice(all[last]!.end, all[last + 1]!.start);
    if (between.length > MAX_JOIN || !/^\s*(?:,?\s*(?:and|or)|,)\s*$/.test(between)) break;
    last++;
  }
  return all.slice(0, last + 1);
}

const withPercent = (text: string, all: readonly Formula[]) => all.map((one) => one.text + percentAfter(text, one.end));

function boxed(text: string, from: number): (Stated & { readonly end: number }) | undefined {
  const all = boxes(text, from);
  const group = joinedTail(text, all);
  const last = group.at(-1);
  if (last === undefined) return undefined;
  return { sources: withPercent(text, group), from: "boxed", end: last.end };
}

/** A box that was never closed, to the end of the text. Only for the right answers of a data set. */
function openBox(text: string): Stated | undefined {
  const at = text.lastIndexOf("\\boxed{");
  return at < 0 ? undefined : { sources: [text.slice(at + 7)], from: "boxed" };
}

/** The last formula or number of a text without an announcement. */
function unannounced(text: string): Stated | undefined {
  const all = mixed(text);
  const last = all.at(-1);
  if (last === undefined) return undefined;
  if (!last.formula) {
    const formula = all.findLast((one) => one.formula);
    const alone = text.slice(last.end).trim().length;
    if (formula === undefined || alone > 0 || text.slice(formula.end, last.start).length > 0)
      return { sources: [last.text], from: "number" };
  }
  const run = all.filter((one) => one.formula);
  return { sources: withPercent(text, joinedTail(text, run)), from: "formula" };
}

/** A text that is nothing but an expression: short, one line, no words of prose. */
function whole(text: string): Stated | undefined {
  const plain = text.trim().replace(/[.\s]+$/, "");
  if (plain === "" || plain.length > 300 || plain.includes("\n") || formulas(plain).length > 0) return undefined;
  const words = plain.replace(/\\[a-zA-Z]+/g, " ").match(/[a-zA-Z]{2,}/g) ?? [];
  const foreign = words.some((word) => word.length > 3 && !isMathWord(word) && !isUnitWord(word));
  if (words.length > 2 || (foreign && /\d/.test(plain))) return undefined;
  if (/^[-+−]?\d+,\d+$/.test(plain) && proseNumber(plain) !== plain) {
    return { sources: [proseNumber(plain)], others: [[plain]], from: "whole" };
  }
  const number = /^[-+−$€£¥\s]*[\d., ]+\s*(?:\\?%|percent|percentage|pct|[$€£¥])?\s*$/i.test(plain)
    ? proseNumber(plain)
    : plain;
  return { sources: [number], from: "whole" };
}

/**
 * What a completion states as its final answer: in `tag` when one is asked for, and nowhere else; otherwise the last box; a
 * "final answer is" behind the last box; "the answer is"; the text itself when it is a formula; the last formula or number.
 */
export function statedAnswer(completion: string, tag?: string): Stated | undefined {
  const from = answerStart(completion);
  if (from < 0) return undefined;
  const tagged = lastTag(completion, tag ?? "answer", from);
  if (tag !== undefined || (tagged !== undefined && boxes(completion, from).length === 0)) {
    if (tagged === undefined) return undefined;
    const inside = boxed(tagged.text, 0) ?? whole(tagged.text) ?? unannounced(tagged.text);
    return inside && { ...inside, from: "tag" };
  }
  const text = completion.slice(from);
  const box = boxed(text, 0);
  const final = lastIndex(text, FINAL, box?.end ?? 0);
  const said = final < 0 ? undefined : announced(text, final);
  if (said !== undefined) return said;
  if (box !== undefined) return box;
  const answer = lastIndex(text, ANSWER, 0);
  return (answer < 0 ? undefined : announced(text, answer)) ?? whole(text) ?? unannounced(text) ?? inWords(text);
}

/** "The answer is Monday." */
function inWords(text: string): Stated | undefined {
  const said = lastPhrase(text);
  const words = said === undefined ? "" : unwrap(said.text);
  return words === "" || words.length > 100 ? undefined : { sources: [words], from: "phrase" };
}

/** With fewer words a right answer is a formula as it stands, not a text that states one. */
const PROSE_WORDS = 4;

/** The right answer of a data row: an expression, or a worked solution that ends in one. */
export function goldAnswer(gold: string): Stated | undefined {
  const box = boxed(gold, 0);
  if (box !== undefined) return box;
  const marked = goldStatement(gold);
  if (marked !== gold && marked !== "") return goldAnswer(marked);
  const all = formulas(gold);
  const only = all.length === 1 ? all[0] : undefined;
  if (only !== undefined && gold.slice(0, only.start).trim() === "")
    return { sources: withPercent(gold, all), from: "formula" };
  const words = gold.match(/(?<![\\a-zA-Z{])[a-zA-Z]{2,}/g)?.length ?? 0;
  return (
    openBox(gold) ??
    whole(gold) ??
    (words >= PROSE_WORDS ? statedAnswer(gold) : undefined) ?? { sources: [gold], from: "whole" }
  );
}
