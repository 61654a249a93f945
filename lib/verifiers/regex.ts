/**
 * Regular expressions on an engine that takes time linear in the text (RE2's algorithm), so that no pattern and no completion
 * can make it backtrack for hours. What such an engine cannot do, back-references and look-around, is refused by name.
 */
import { createRequire } from "node:module";
import type * as Re2 from "re2js";
import { messageOf, RlsdError } from "../errors.js";
import { define } from "./definition.js";
import { answerStart, spoken } from "./extract.js";
import { flag, oneOf, optional, rowError, text } from "./options.js";

const load = createRequire(import.meta.url);

function compilePattern(pattern: string, flags: string): Re2.RE2JS {
  const { RE2JS } = load("re2js") as typeof Re2;
  const modes: Readonly<Record<string, number>> = {
    i: RE2JS.CASE_INSENSITIVE,
    m: RE2JS.MULTILINE,
    s: RE2JS.DOTALL,
    u: 0,
  };
  let mode = 0;
  for (const one of flags) {
    const bit = Object.hasOwn(modes, one) ? modes[one] : undefined;
    if (bit === undefined) throw new SyntaxError(`flag "${one}" is none of i, m, s, u`);
    mode |= bit;
  }
  try {
    return RE2JS.compile(RE2JS.translateRegExp(pattern), mode);
  } catch (error) {
    const message = messageOf(error);
    throw new SyntaxError(
      `${message}; back-references and look-around are not available, they cannot run in linear time`,
    );
  }
}

/** For ajv: `pattern` and `patternProperties` of schemas. */
export function linearRegExp(pattern: string, flags: string): { test(s: string): boolean; toString(): string } {
  const compiled = compilePattern(pattern, flags);
  // ajv takes two patterns for one when their texts are the same.
  return { test: (s) => compiled.test(s), toString: () => `/${pattern}/${flags}` };
}
/** Written into code that ajv generates for stand-alone use, which is not done here. */
linearRegExp.code = "linearRegExp";

const readers = {
  /** The pattern, in JavaScript's syntax without back-references and look-around. */
  pattern: text(),
  flags: text("s"),
  /** full: all of the answer; search: some part of it. */
  match: oneOf(["full", "search"], "full"),
  /** Match the whole completion, its thought included, rather than what follows `</think>`. */
  whole: flag(true),
  /** Field whose text must be what the first group captured. */
  capture: optional(text()),
};

export const regex = define({
  type: "regex",
  summary: "a regular expression, in linear time",
  where: "worker",
  drawnAlone: true,
  readers,
  create(options) {
    let compiled: Re2.RE2JS;
    try {
      compiled = compilePattern(options.pattern, options.flags);
    } catch (error) {
      const message = `Expected a regular expression for option "pattern" of the verifier "regex" but: ${String(error)}.`;
      throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message, { cause: error });
    }
    if (options.capture !== undefined && compiled.groupCount() < 1) {
      throw rowError("regex", "capture", "used with a pattern that has a group", options.pattern);
    }
    const expected = (row: Readonly<Record<string, unknown>>) =>
      options.capture === undefined ? undefined : row[options.capture];
    return {
      check(row) {
        if (options.capture !== undefined && typeof expected(row) !== "string") {
          throw rowError("regex", options.capture, "a text", expected(row));
        }
      },
      judge(sample) {
        const { row } = sample;
        const said = options.whole ? sample.completion : spoken(sample);
        const from = options.whole ? 0 : answerStart(said);
        const read = from < 0 ? "" : said.slice(from).trim();
        const matched = options.match === "full" ? compiled.testExact(read) : compiled.test(read);
        if (!matched) return { reward: 0, reason: "no-match" };
        if (options.capture === undefined) return { reward: 1 };
        const matcher = compiled.matcher(read);
        if (options.match === "full") matcher.matches();
        else matcher.find();
        const captured = matcher.group(1)?.trim() ?? null;
        const right = expected(row);
        return { reward: captured === right ? 1 : 0, detail: { extracted: captured, expected: right } };
      },
    };
  },
});
