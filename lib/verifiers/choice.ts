/** Multiple choice: one letter, stated as an answer. A letter that merely starts a sentence is not an answer. */
import { define, noAnswer, type Row } from "./definition.js";
import { answerStart, boxes, finalAnswer, unwrap } from "./extract.js";
import { flag, idleOption, integer, optional, rowError, text } from "./options.js";
import type { Verdict } from "./verifier.js";

const readers = {
  /** Field with the right letter, the number of the right choice, or its text. */
  answer: text("answer"),
  /** Letters that may be chosen. */
  choices: text("ABCDEFGHIJ"),
  /** Field with the choices of a row, a list of texts, for rows that have it: letters beyond them are none. */
  field: text("choices"),
  /** Number of the first choice where the answer is one: 0 as in MMLU, or 1. */
  first: integer(0, 0, 1),
  /** Accept only an answer inside this tag; default: a box, `<answer>`, "the answer is", or a completion that is the letter. */
  tag: optional(text()),
  /** Also take "B" when the last line is nothing but that, where no `tag` is asked for; default: true. */
  lastLine: optional(flag(true)),
};

/** Without what stands around an answer, and without LaTeX's words for text. */
const spelled = (said: string): string =>
  unwrap(said).replace(/\\(?:text|textbf|mathrm|mathbf|textit)\s{0,4}\{([^{}]*)\}/g, "$1");

/** "(B)", "B.", "B) text", "option B", "\text{B}" say B; "Because" and "A or B" say nothing. */
function letterOf(said: string, choices: string): string | undefined {
  const plain = spelled(said)
    .replace(/^\s*(?:option|choice|letter|answer)\s+/i, "")
    .replace(/[*`]/g, "");
  const match = /^\s*[([{]?\s*([A-Za-z])\s*(?:[)\]}.:,]|$|\s-\s|\s+\()([\s\S]*)$/.exec(plain);
  const letter = match?.[1]?.toUpperCase();
  if (letter === undefined || !choices.includes(letter)) return undefined;
  const rest = (match?.[2] ?? "").slice(0, 400);
  const another = new RegExp(`^[\\s(]*(?:or|and|/|,|&)?[\\s(]*([${choices}])(?:[)\\].:,\\s]|$)`, "u").exec(rest);
  return another !== null && another[1] !== letter ? undefined : letter;
}

/** A text as choices are compared: spacing, case and what stands around an answer aside. */
const plainText = (said: string): string => spelled(said).replace(/\s+/g, " ").toLowerCase();

/** The choices of a row: a list of texts or numbers, the JSON of one, or ARC's {text: [...]}; undefined: it has none. */
function listed(value: unknown): readonly string[] | undefined {
  if (typeof value === "string") {
    try {
      return listed(JSON.parse(value) as object);
    } catch {
      return undefined;
    }
  }
  const list = Array.isArray(value) ? value : (value as { readonly text?: unknown } | null | undefined)?.text;
  const isChoice = (item: unknown) => typeof item === "string" || typeof item === "number";
  return Array.isArray(list) && list.length > 0 && list.every(isChoice) ? list.map(String) : undefined;
}

/** The letters of a row, and the texts that they stand for, where it has some. */
interface Lettered {
  readonly letters: string;
  readonly texts: readonly string[];
}

/** The letter of the one choice with that text. */
function letterOfText(said: string, { letters, texts }: Lettered): string | undefined {
  const plain = plainText(said);
  const found = texts.flatMap((text, i) => (plainText(text) === plain ? [i] : []));
  return found.length === 1 ? letters[found[0]!] : undefined;
}

/** The right letter of a row that says a letter, a number or a text; undefined: none of them, or two that differ. */
function goldOf(value: unknown, row: Lettered, first: number): string | undefined {
  const numbered = (number: number) => row.letters[number - first];
  if (typeof value === "number") return numbered(value);
  if (typeof value !== "string") return undefined;
  const stated = boxes(value).at(-1)?.text ?? value;
  const digits = /^\s*\d+\s*$/.test(stated);
  const letter = digits ? numbered(Number(stated)) : letterOf(stated, row.letters);
  const own = letterOfText(stated, row);
  if (letter === undefined || own === undefined) return letter ?? own;
  // "C" may be a choice's text too, and "2" of choices that are numbers.
  return letter === own ? letter : undefined;
}

/** Where a completion states its answer. The last line of several, where it is long, is no statement. */
function statedIn(
  completion: string,
  o: { readonly tag: string | undefined; readonly lastLine?: boolean | undefined },
) {
  const said = finalAnswer(completion, o.tag, o.lastLine ?? true);
  const from = answerStart(completion);
  const whole = from < 0 ? "" : completion.slice(from).trim();
  return said?.from === "last line" && whole.includes("\n") && said.text.length > 16 ? undefined : said;
}

function verdictOf(said: ReturnType<typeof statedIn>, row: Lettered, expected: string): Verdict {
  if (said === undefined) return noAnswer(expected);
  const letter = letterOf(said.text, row.letters) ?? letterOfText(said.text, row);
  const detail = { extracted: letter ?? null, said: said.text.slice(0, 200), from: said.from, expected };
  if (letter === undefined) return { reward: 0, reason: "no-answer", detail };
  return { reward: letter === expected ? 1 : 0, detail };
}

export const choice = define({
  type: "choice",
  summary: 'multiple choice: one letter, from a tag, a box or "the answer is"',
  where: "inline",
  readers,
  create(options) {
    const choices = options.choices.toUpperCase();
    if (!/^[A-Z]+$/.test(choices)) throw rowError("choice", "choices", "letters", options.choices);
    if (options.lastLine !== undefined && options.tag !== undefined)
      throw idleOption("choice", "lastLine", 'beside "tag"');
    const lettered = (row: Row): Lettered => {
      const texts = listed(row[options.field]) ?? [];
      return { texts, letters: texts.length === 0 ? choices : choices.slice(0, texts.length) };
    };
    const gold = (row: Row, own = lettered(row)) => goldOf(row[options.answer], own, options.first);
    const expectedOf = ({ letters, texts }: Lettered): string => {
      const last = options.first + letters.length - 1;
      const text = texts.length > 0 ? ` or the text of one of "${options.field}", and to mean one of them` : "";
      return `one letter of ${letters}, a number from ${options.first} to ${last}${text}`;
    };
    return {
      check(row) {
        const own = lettered(row);
        if (own.texts.length > choices.length) {
          throw rowError(
            "choice",
            options.field,
            `at most ${choices.length} choices, as "choices" has letters`,
            own.texts,
          );
        }
        if (gold(row, own) === undefined) {
          throw rowError("choice", options.answer, expectedOf(own), row[options.answer]);
        }
      },
      answerOf(row) {
        const own = lettered(row);
        const letter = gold(row, own);
        const value = row[options.answer];
        if (letter === undefined || (typeof value === "string" && letterOf(value, own.letters) === letter))
          return undefined;
        const text = own.texts[own.letters.indexOf(letter)];
        return text === undefined ? letter : `${letter}. ${text}`;
      },
      judge({ completion, row }) {
        const own = lettered(row);
        const expected = gold(row, own);
        if (expected === undefined) return { reward: null, reason: "gold" };
        return verdictOf(statedIn(completion, options), own, expected);
      },
    };
  },
});
