import type { Tokenizer as Library } from "@huggingface/tokenizers";
import { byteLevelText } from "./token-bytes.js";

/** Words that are kept, and their characters, at most. */
const [MOST_WORDS, LONGEST_WORD] = [2 ** 16, 64];

type Part = Readonly<Record<string, unknown>>;

const partsOf = (part: Part): Part[] =>
  part.type === "Sequence" ? ((part.pretokenizers ?? []) as Part[]).flatMap(partsOf) : [part];

const isBytes = (part: Part | undefined): boolean =>
  part?.type === "ByteLevel" && part.use_regex === false && part.add_prefix_space !== true;

/** A pre-tokenizer that ends with writing words as characters for bytes, without that; undefined: it does not. */
export function beforeBytes(given: unknown): { readonly pre_tokenizer: Part | null } | undefined {
  if (typeof given !== "object" || given === null) return undefined;
  const parts = partsOf(given as Part);
  if (!isBytes(parts.at(-1))) return undefined;
  const pretokenizers = parts.slice(0, -1);
  return { pre_tokenizer: pretokenizers.length === 0 ? null : { type: "Sequence", pretokenizers } };
}

/**
 * Gives a library without that last part it, and the tokens of every word once: texts are made of few words, and to write one as
 * characters for bytes and to look for what merges takes several times as long as to find it again.
 */
export function rememberWords({ model }: Library): void {
  const known = new Map<string, readonly string[]>();
  const encode = model!.encode.bind(model);
  const tokensOf = (word: string): readonly string[] => {
    const found = known.get(word);
    if (found !== undefined) return found;
    const tokens = encode([byteLevelText(word)]);
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
