/** Shapers: how long, how repetitive, in what form. They say nothing about truth; use them under "sum" or behind a "gate". */
import { define } from "./definition.js";
import { flag, integer, oneOf, optional, rowError } from "./options.js";

const WORD = /[\p{L}\p{N}]+/gu;

/** Words (runs of letters and digits) or code points of a text. */
function units(s: string, unit: "word" | "character"): string[] {
  return unit === "word" ? (s.toLowerCase().match(WORD) ?? []) : [...s];
}

const lengthReaders = {
  unit: oneOf(["word", "character"], "word"),
  /** 0 from here on. */
  max: integer(undefined, 1),
  /** The fall from 1 to 0 takes this many units before `max`. */
  buffer: integer(0, 0),
  /** Rises linearly from 0 to 1 over the first `min` units. */
  min: integer(0, 0),
  /** A completion that was cut off gets 0. */
  cutIsZero: flag(true),
};

export const length = define({
  type: "length",
  summary: "1 up to a length, then linearly less (the soft overlong penalty of DAPO, moved to [0, 1])",
  where: "inline",
  drawnAlone: true,
  readers: lengthReaders,
  create(options) {
    if (options.buffer > options.max)
      throw rowError("length", "buffer", `at most max (${options.max})`, options.buffer);
    return {
      judge({ completion, finish }) {
        const n = units(completion, options.unit).length;
        const detail = { length: n, unit: options.unit, finish };
        if (options.cutIsZero && finish === "length") return { reward: 0, reason: "cut", detail };
        const long = n <= options.max - options.buffer ? 1 : n >= options.max ? 0 : (options.max - n) / options.buffer;
        const short = n >= options.min ? 1 : n / options.min;
        return { reward: Math.min(long, short), detail };
      },
    };
  },
});

const repetitionReaders = {
  unit: oneOf(["word", "character"], "word"),
  /** Length of the n-grams. */
  n: integer(4, 1, 64),
  /** Only the last so many units are read. */
  window: optional(integer(undefined, 2)),
};

export const repetition = define({
  type: "repetition",
  summary: "share of n-grams that are new: 1 without repetition, near 0 in a loop",
  where: "inline",
  drawnAlone: true,
  readers: repetitionReaders,
  create(options) {
    return {
      judge({ completion }) {
        const all = units(completion, options.unit);
        const read = options.window === undefined ? all : all.slice(-options.window);
        const total = read.length - options.n + 1;
        if (total <= 0) return { reward: 1, detail: { ngrams: 0 } };
        const seen = new Set<string>();
        for (let i = 0; i < total; i++) seen.add(read.slice(i, i + options.n).join(" "));
        return { reward: seen.size / total, detail: { ngrams: total, distinct: seen.size } };
      },
    };
  },
});
