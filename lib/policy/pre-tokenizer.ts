type Part = Readonly<Record<string, unknown>>;

/** GPT-2's words. */
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const isolated = (regex: string): Part => ({
  type: "Split",
  pattern: { Regex: regex },
  behavior: "Isolated",
  invert: false,
});
const kept = (regex: string): Part => ({ type: "Split", pattern: { Regex: regex }, behavior: "Removed", invert: true });

/** ByteLevel with the words as a part of their own, and before them the space that it would put there. */
function byteLevel(part: Part): Part {
  const space = { type: "Replace", pattern: { Regex: "\\A(?! )" }, content: " " };
  const bytes = { ...part, use_regex: false, add_prefix_space: false };
  const pretokenizers = [...(part.add_prefix_space === true ? [space] : []), isolated(WORDS), bytes];
  return { type: "Sequence", pretokenizers };
}

/** Metaspace, and behind it the words that each begin with its mark, which the library does not take apart. */
function metaspace(part: Part): Part {
  const mark = `\\x{${String(part.replacement ?? "\u2581")
    .codePointAt(0)!
    .toString(16)}}`;
  return { type: "Sequence", pretokenizers: [part, kept(`${mark}[^${mark}]*|[^${mark}]+`)] };
}

/**
 * A pre-tokenizer in the words of one whose expressions the library reads as Unicode does. By itself it takes digits,
 * letters and white space for those of JavaScript (`\d` of Digits is 0 to 9 alone, `\w` of Whitespace has no é, `\s` has U+FEFF
 * and not U+0085), where the tokenizers that made the vocabularies mean White_Space and all of \p{N} and \p{L}: x² would be
 * other ids to SmolLM 2 and Granite than in training.
 */
export function unicodePreTokenizer(part: unknown): unknown {
  if (typeof part !== "object" || part === null) return part;
  const own = part as Part;
  switch (own.type) {
    case "Sequence":
      return { ...own, pretokenizers: (own.pretokenizers as readonly unknown[] | undefined)?.map(unicodePreTokenizer) };
    case "Digits":
      return isolated(own.individual_digits === true ? "\\p{N}" : "\\p{N}+");
    case "ByteLevel":
      return own.use_regex === false ? own : byteLevel(own);
    case "Metaspace":
      return own.split === false ? own : metaspace(own);
    case "Whitespace":
      return kept("\\w+|[^\\w\\s]+");
    case "WhitespaceSplit":
      return kept("\\S+");
    default:
      return own;
  }
}
