/** Multiple choice: one letter, stated as an answer. A letter that merely starts a sentence is not an answer. */
import { define, noAnswer, type Row } from "./definition.js";
import { answerStart, boxes, finalAnswer, unwrap } from "./extract.js";
import { flag, optional, rowError, text } from "./options.js";

const readers = {
  /** Field with the right letter. */
  answer: text("answer"),
  /** Letters that may be chosen. */
  choices: text("ABCDEFGHIJ"),
  /** Accept only an answer inside this tag; default: a box, `<answer>`, "the answer is", or a completion that is the letter. */
  tag: optional(text()),
  /** Also take "B" when the last line is nothing but that. */
  lastLine: flag(true),
};

/** "(B)", "B.", "B) text", "option B", "\text{B}" say B; "Because" and "A or B" say nothing. */
function letterOf(said: string, choices: string): string | undefined {
  const plain = unwrap(said)
    .replace(/\\(?:text|textbf|mathrm|mathbf|textit)\s{0,4}\{([^{}]*)\}/g, "$1")
    .replace(/^\s*(?:option|choice|letter|answer)\s+/i, "")
    .replace(/[*`]/g, "");
  const match = /^\s*[([{]?\s*([A-Za-z])\s*(?:[)\]}.:,]|$|\s-\s|\s+\()([\s\S]*)$/.exec(plain);
  const letter = match?.[1]?.toUpperCase();
  if (letter === undefined || !choices.includes(letter)) return undefined;
  const rest = (match?.[2] ?? "").slice(0, 400);
  const another = new RegExp(`^[\\s(]*(?:or|and|/|,|&)?[\\s(]*([${choices}])(?:[)\\].:,\\s]|$)`, "u").exec(rest);
  return another !== null && another[1] !== letter ? undefined : letter;
}

export const choice = define({
  type: "choice",
  summary: 'multiple choice: one letter, from a tag, a box or "the answer is"',
  where: "inline",
  readers,
  create(options) {
    const choices = options.choices.toUpperCase();
    if (!/^[A-Z]+$/.test(choices)) throw rowError("choice", "choices", "letters", options.choices);
    const gold = (row: Row) => {
      const value = row[options.answer];
      return typeof value === "string" ? letterOf(boxes(value).at(-1)?.text ?? value, choices) : undefined;
    };
    return {
      check(row) {
        if (gold(row) === undefined) {
          throw rowError("choice", options.answer, `one letter of ${choices}`, row[options.answer]);
        }
      },
      judge({ completion, row }) {
        const expected = gold(row);
        if (expected === undefined) return { reward: null, reason: "gold" };
        const said = finalAnswer(completion, options.tag, options.lastLine);
        const from = answerStart(completion);
        const whole = from < 0 ? "" : completion.slice(from).trim();
        const source = said?.from === "last line" && whole.includes("\n") && said.text.length > 16 ? undefined : said;
        if (source === undefined) return noAnswer(expected);
        const letter = letterOf(source.text, choices);
        const detail = { extracted: letter ?? null, said: source.text.slice(0, 200), from: source.from, expected };
        if (letter === undefined) return { reward: 0, reason: "no-answer", detail };
        return { reward: letter === expected ? 1 : 0, detail };
      },
    };
  },
});
