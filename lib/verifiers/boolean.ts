/** Yes or no, true or false. */
import { define, noAnswer, type Row } from "./definition.js";
import { finalAnswer, unwrap } from "./extract.js";
import { optional, rowError, text } from "./options.js";

const readers = {
  /** Field with the truth: true, false, "yes", "no", "true", "false". */
  answer: text("answer"),
  /** Accept only an answer inside this tag. */
  tag: optional(text()),
};

const YES = /^(?:yes|true|correct)\b/i;
const NO = /^(?:no|false|incorrect)\b/i;

function truth(said: string): boolean | undefined {
  const plain = unwrap(said)
    .replace(/\\(?:text|textbf|mathrm|mathbf)\s{0,4}\{([^{}]*)\}/g, "$1")
    .trim();
  const yes = YES.test(plain);
  const no = NO.test(plain);
  if (yes === no) return undefined;
  const hedged = /^\w+\s*(?:or|and|\/|,)\s*(?:yes|no|true|false)\b/i.test(plain);
  return hedged ? undefined : yes;
}

export const boolean = define({
  type: "boolean",
  summary: "yes or no, true or false",
  where: "inline",
  readers,
  create(options) {
    const gold = (row: Row) => {
      const value = row[options.answer];
      return typeof value === "boolean" ? value : typeof value === "string" ? truth(value) : undefined;
    };
    return {
      check(row) {
        if (gold(row) === undefined) {
          throw rowError("boolean", options.answer, "true, false, yes or no", row[options.answer]);
        }
      },
      judge({ completion, row }) {
        const expected = gold(row);
        if (expected === undefined) return { reward: null, reason: "gold" };
        const said = finalAnswer(completion, options.tag, true);
        if (said === undefined) return noAnswer(expected);
        const answer = truth(said.text);
        const detail = { extracted: answer ?? null, said: said.text.slice(0, 200), from: said.from, expected };
        if (answer === undefined) return { reward: 0, reason: "no-answer", detail };
        return { reward: answer === expected ? 1 : 0, detail };
      },
    };
  },
});
