import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import { isNamedPattern } from "../gguf/pre-tokenizers.js";
import { within } from "../time-limit.js";

/** Other patterns of published tokenizers: of DeepSeek 3, T5 and XLM-RoBERTa. */
const PUBLISHED: ReadonlySet<string> = new Set([
  "\\p{N}{1,3}",
  "[一-龥\u3040-ゟ゠-ヿ]+",
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
  " {2,}",
]);

/** What matches one place in one way: a character, an escape, a class. */
const ATOM = String.raw`(?:[^\\()[\]{}*+?|^$]|\\[pPu]\{[^{}]*\}|\\[^k]|\[(?:[^\\\]]|\\.)*\])`;
const ALTERNATIVE = `${ATOM}(?:\\??${ATOM}+)?[*+?]?`;
/** Alternatives of atoms, of which the first may be left out and the last repeated: nothing is tried twice at one place. */
const PLAIN = new RegExp(`^${ALTERNATIVE}(?:\\|${ALTERNATIVE})*$`, "su");

const isLinear = (pattern: string): boolean => PLAIN.test(pattern) || PUBLISHED.has(pattern) || isNamedPattern(pattern);

/** The regular expressions in the parts of a tokenizer, those of lists in lists too. */
function patternsIn(part: unknown): string[] {
  if (typeof part !== "object" || part === null) return [];
  const { pattern } = part as { pattern?: { Regex?: unknown } | null };
  const own = typeof pattern?.Regex === "string" ? [pattern.Regex] : [];
  return [...own, ...Object.values(part).flatMap((inner) => (Array.isArray(inner) ? inner.flatMap(patternsIn) : []))];
}

/** Runs what applies a tokenizer's patterns to so many characters or ids. */
export type Limit = <T>(length: number, run: () => T) => T;

const unlimited: Limit = (_, run) => run();

/**
 * JavaScript's regular expressions try all ways to match, of which some patterns have more than anybody can wait for: `(a+)+$` has
 * 2^n of n letters. Plain and published patterns are known to take time in proportion to the text, and run as they are; others
 * run for a limited time, which costs some tenths of a millisecond each time.
 */
export function patternLimit(parts: readonly unknown[], file: string): Limit {
  const unknown = parts.flatMap(patternsIn).filter((pattern) => !isLinear(pattern));
  if (unknown.length === 0) return unlimited;
  return (length, run) => {
    // Merging a megabyte of one letter takes a minute.
    const milliseconds = 5000 + length / 5;
    return within(milliseconds, run, () => {
      const seconds = `${Math.round(milliseconds / 1000)} s`;
      const named = unknown.map(show).join(", ");
      return new RlsdError(
        "ERR_RLSD_TOKENIZER",
        `${file}: its patterns took longer than ${seconds} on an input of length ${length}: expected ones that take time in proportion to a text but found ${named}; a repetition in a repetition, as (a+)+, takes for ever`,
      );
    });
  };
}
