import type { Tokenizer as Library } from "@huggingface/tokenizers";

/** Words that are kept, and their characters, at most. */
const [MOST_WORDS, LONGEST_WORD] = [2 ** 16, 64];

type Part = Readonly<Record<string, unknown>>;

const partsOf = (part: Part): Part[] =>
  part.type === "Sequence" ? ((part.pretokenizers ?? []) as Part[]).flatMap(partsOf) : [part];

const isBytes = (part: Part | undefined): boolean =>
  part?.type === "ByteLevel" && part.use_regex === false && part.add_prefix_space !== true;

/** Characters behind which texts are not cut, at most: a vocabulary with more has no words. */
const MOST_CROSSINGS = 64;

/**
 * Where a BPE of whole texts, as those of Llama 2 and Gemma, may be cut into words without another result: before a space, behind
 * any character that stands before one in no token, since what merges over such a place would be one. (`>▁</` of Gemma 3 is the
 * only token of its kind.) undefined: nowhere that is known.
 */
export function wordsOf(model: unknown): Part | undefined {
  const { type, vocab, ...own } = (model ?? {}) as Part;
  const alters = own.ignore_merges || own.end_of_word_suffix || own.continuing_subword_prefix;
  if (type !== "BPE" || alters || typeof vocab !== "object" || vocab === null) return undefined;
  const before = new Set<string>();
  for (const token of Object.keys(vocab)) {
    if (token.lastIndexOf("▁") > 0) for (const [, character] of token.matchAll(/([^▁])▁/gu)) before.add(character!);
  }
  if (before.size > MOST_CROSSINGS) return undefined;
  const kept = [...before].map((character) => `\\x{${character.codePointAt(0)!.toString(16)}}`).join("");
  return { type: "Split", pattern: { Regex: `(?<=[^▁${kept}])(?=▁)` }, behavior: "Isolated", invert: false };
}

/** A pre-tokenizer that ends with writing words as characters for bytes, without that; undefined: it does not. */
export function beforeBytes(given: unknown): { readonly pre_tokenizer: Part | null } | undefined {
  if (typeof given !== "object" || given === null) return undefined;
  const parts = partsOf(given as Part);
  if (!isBytes(parts.at(-1))) return undefined;
  const pretokenizers = parts.slice(0, -1);
  return { pre_tokenizer: pretokenizers.length === 0 ? null : { type: "Sequence", pretokenizers } };
}

/**
 * Keeps the tokens of every word: texts are made of few, and to look for what merges takes several times as long as to find a word
 * again. `write`: a word in the characters of the vocabulary.
 */
export function rememberWords({ model }: Library, write: (word: string) => string): void {
  const known = new Map<string, readonly string[]>();
  const encode = model!.encode.bind(model);
  const tokensOf = (word: string): readonly string[] => {
    const found = known.get(word);
    if (found !== undefined) return found;
    const tokens = encode([write(word)]);
    if (word.length > LONGEST_WORD) return tokens;
    if (known.size >= MOST_WORDS) known.clear();
    // A copy: a word is a part of its text, which would stay in memory with it.
    known.set(Buffer.from(word, "utf8").toString("utf8"), tokens);
    return tokens;
  };
  model!.encode = (words: readonly string[]) => {
    const out: string[] = [];
    for (const word of words) for (const token of tokensOf(word)) out.push(token);
    return out;
  };
}
