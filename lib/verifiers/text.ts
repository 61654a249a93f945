/** Text against text: exact after normalisation, or graded by word or character error rate. */
import { define, noAnswer, type Row } from "./definition.js";
import { answerStart, finalAnswer } from "./extract.js";
import { flag, idleOption, integer, oneOf, optional, rowError, text as textOption } from "./options.js";

const readers = {
  /** Field with the right text, or a list of right texts of which the best match counts. */
  answer: textOption("answer"),
  /** exact: 1 or 0. wer, cer: max(0, 1 - edit distance / length of the right text), in words or characters. */
  metric: oneOf(["exact", "wer", "cer"], "exact"),
  /** Compare what is inside this tag. */
  tag: optional(textOption()),
  /** Compare the stated final answer (a box, "the answer is", the last line) rather than the whole completion; default: false. */
  extract: optional(flag(false)),
  ignoreCase: flag(true),
  ignorePunctuation: flag(true),
  ignoreArticles: flag(false),
  /** wer, cer: words or characters beyond this many are not read, which bounds the time. Default 4000. */
  maxLength: optional(integer(undefined, 1, 20000)),
};

/** Unicode-normal, one space between words; further steps by option. */
export function normalizeText(
  s: string,
  how: { readonly ignoreCase: boolean; readonly ignorePunctuation: boolean; readonly ignoreArticles: boolean },
): string {
  let t = s.normalize("NFKC");
  if (how.ignoreCase) t = t.toLowerCase();
  if (how.ignorePunctuation) t = t.replace(/[\p{P}\p{S}]/gu, " ");
  if (how.ignoreArticles) t = t.replace(/\b(?:a|an|the)\b/giu, " ");
  return t.split(/\s+/u).filter(Boolean).join(" ");
}

/** Levenshtein distance of two sequences; O(|a| |b|) time, O(|b|) memory. */
export function editDistance(a: readonly string[], b: readonly string[]): number {
  const ids = new Map<string, number>();
  const encode = (items: readonly string[]) =>
    Int32Array.from(items, (item) => {
      const known = ids.get(item);
      if (known !== undefined) return known;
      ids.set(item, ids.size);
      return ids.size - 1;
    });
  const left = encode(a);
  const right = encode(b);
  const row = Int32Array.from({ length: right.length + 1 }, (_, j) => j);
  for (let i = 0; i < left.length; i++) {
    let diagonal = row[0]!;
    row[0] = i + 1;
    for (let j = 0; j < right.length; j++) {
      const substituted = diagonal + (left[i] === right[j] ? 0 : 1);
      diagonal = row[j + 1]!;
      row[j + 1] = Math.min(substituted, diagonal + 1, row[j]! + 1);
    }
  }
  return row[right.length]!;
}

/** The right texts of a row, or undefined where there are none. */
function goldTexts(row: Row, name: string): readonly string[] | undefined {
  const given = row[name];
  const all = Array.isArray(given) ? given : [given];
  return all.length > 0 && all.every((one): one is string => typeof one === "string" && one.trim() !== "")
    ? all
    : undefined;
}

export const text = define({
  type: "text",
  summary: "text against text: exact after normalisation, or by word or character error rate",
  // An edit distance of two texts of 20,000 characters takes seconds.
  where: "worker",
  readers,
  create(options) {
    const { maxLength = 4000 } = options;
    if (options.metric === "exact" && options.maxLength !== undefined) {
      throw idleOption("text", "maxLength", 'where "metric" is exact');
    }
    if (options.extract !== undefined && options.tag !== undefined) {
      throw idleOption("text", "extract", 'beside "tag"');
    }
    const split = (s: string) => {
      const normal = normalizeText(s, options);
      return options.metric === "cer" ? [...normal] : normal.split(" ").filter(Boolean);
    };
    const score = (said: string, right: string) => {
      if (options.metric === "exact") return normalizeText(said, options) === normalizeText(right, options) ? 1 : 0;
      const reference = split(right).slice(0, maxLength);
      const distance = editDistance(split(said).slice(0, 2 * maxLength), reference);
      return Math.max(0, 1 - distance / Math.max(1, reference.length));
    };
    return {
      check(row) {
        const right = goldTexts(row, options.answer);
        if (right === undefined || right.some((one) => normalizeText(one, options) === "")) {
          throw rowError(
            "text",
            options.answer,
            "a text, or a list of texts, with a letter or digit",
            row[options.answer],
          );
        }
      },
      judge({ completion, row }) {
        const expected = goldTexts(row, options.answer);
        if (expected === undefined) return { reward: null, reason: "gold" };
        const from = answerStart(completion);
        if (from < 0) return noAnswer(expected);
        const extracted = options.extract || options.tag !== undefined;
        const said = extracted
          ? finalAnswer(completion, options.tag, true)
          : { text: completion.slice(from).trim(), from: "whole" };
        if (said === undefined) return noAnswer(expected);
        const reward = expected.reduce(
          (best, right) => Math.max(best, score(said.text, right)),
          Number.NEGATIVE_INFINITY,
        );
        return { reward, detail: { extracted: said.text.slice(0, 500), from: said.from, expected } };
      },
    };
  },
});
