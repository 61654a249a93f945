import type { RlsdError } from "../../errors.js";
import { PRE_TOKENIZERS, type PreTokenizer, preTokenizerOf } from "../../gguf/pre-tokenizers.js";
import { byteToken, isByte, SPACE, TOKEN, tokenizerError } from "../../gguf/token-types.js";
import { f32s, i32s, string, strings, type Value } from "../../gguf/write.js";

type Json = Readonly<Record<string, unknown>>;

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
  /** Whether it takes away spaces before it, or behind it. */
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/** Contents of a tokenizer.json, of a kind that merges. */
interface BpeFile {
  readonly model: Json & { readonly vocab: Readonly<Record<string, number>> };
  readonly merges: readonly (readonly [string, string])[];
  readonly added: readonly AddedToken[];
  readonly normalizer: Json | null;
  readonly preTokenizer: Json | null;
}

const splitMerge = (merge: unknown): [string, string] => {
  const parts = Array.isArray(merge) ? merge : String(merge).split(" ");
  if (parts.length === 2) return parts as [string, string];
  throw tokenizerError(`tokenizer.json: expected two parts of a merge but found ${JSON.stringify(merge)}`);
};

/** @throws RlsdError ERR_RLSD_TOKENIZER where it is no BPE */
export function bpeFile(json: Json): BpeFile {
  const model = json.model as BpeFile["model"];
  if (model?.type !== "BPE") {
    throw tokenizerError(
      `tokenizer.json: a model of type ${JSON.stringify(model?.type)} is not written to GGUF: expected "BPE"`,
    );
  }
  return {
    model,
    merges: ((model.merges as unknown[] | undefined) ?? []).map(splitMerge),
    added: (json.added_tokens as AddedToken[] | undefined) ?? [],
    normalizer: (json.normalizer as Json | undefined) ?? null,
    preTokenizer: (json.pre_tokenizer as Json | undefined) ?? null,
  };
}

/** Those of Phi 3's special tokens that leave spaces behind them. */
const PHI_LEAVES = ["<unk>", "<s>", "<|endoftext|>"];

/** Which special tokens take spaces away: none, those of a Phi 3, or others. */
export function strippingOf({ added }: BpeFile): "none" | "phi" | "other" {
  if (!added.some(({ lstrip, rstrip }) => lstrip || rstrip)) return "none";
  const as = added.every(({ content, lstrip, rstrip }) => !lstrip && rstrip !== PHI_LEAVES.includes(content));
  const named = ["</s>", ...PHI_LEAVES].every((name) => added.some(({ content }) => content === name));
  return as && named ? "phi" : "other";
}

interface VocabularyMetadata {
  readonly entries: readonly [string, Value][];
  /** What whoever uses the file should know. */
  readonly notes: readonly string[];
}

interface Tokens {
  readonly texts: string[];
  readonly types: number[];
  readonly notes: string[];
}

/** llama.cpp takes what looks like a control token for one, and warns where the file does not. */
const typeOf = ({ content, special }: AddedToken): number =>
  special === true || /^<[|\uff5c].*[|\uff5c]>$/.test(content) ? TOKEN.control : TOKEN.userDefined;

const beyond = (id: number, size: number): RlsdError =>
  tokenizerError(`tokenizer.json has an id of ${id}, but the model has ${size} tokens`);

/** Every id of the model has one; those that the tokenizer does not have are unused. Added tokens may be more than those. */
function tokensOf({ model, added }: BpeFile, size: number): Tokens {
  const texts = new Array<string | undefined>(size).fill(undefined);
  const types = new Array<number>(size).fill(TOKEN.unused);
  const extra = new Map(added.filter(({ id }) => id >= size).map(({ id, content }) => [id, content]));
  for (const [text, id] of Object.entries(model.vocab)) {
    if (id < size) [texts[id], types[id]] = [text, TOKEN.normal];
    else if (!extra.has(id)) throw beyond(id, size);
  }
  for (const token of added) {
    if (token.id < size) [texts[token.id], types[token.id]] = [token.content, typeOf(token)];
  }
  const taken = new Set(texts);
  const whole = texts.map((text, id) => {
    let name = text ?? `[PAD${id}]`;
    while (text === undefined && taken.has(name)) name += "_";
    return name;
  });
  const note = `the model has no tokens for ${[...extra.values()].slice(0, 3).join(", ")}: left out`;
  return { texts: whole, types, notes: extra.size === 0 ? [] : [note] };
}

/** llama.cpp ends where two tokens have one text. */
function checkDistinct(texts: readonly string[]): void {
  const seen = new Map<string, number>();
  for (const [id, text] of texts.entries()) {
    const other = seen.get(text);
    if (other !== undefined) {
      throw tokenizerError(
        `tokens ${other} and ${id} have one text, ${JSON.stringify(text)}, which GGUF does not have`,
      );
    }
    seen.set(text, id);
  }
}

const listed = ({ texts, types }: Tokens): [string, Value][] => {
  checkDistinct(texts);
  return [
    ["tokenizer.ggml.tokens", strings(texts)],
    ["tokenizer.ggml.token_type", i32s(types)],
  ];
};

const isComposed = (normalizer: Json): boolean =>
  normalizer.type === "NFC" || (normalizer.type === "Sequence" && (normalizer.normalizers as Json[]).every(isComposed));

function preTokenizer({ model, preTokenizer: step, normalizer }: BpeFile): PreTokenizer {
  if (normalizer !== null && !isComposed(normalizer)) {
    const found = `the normalizer ${JSON.stringify(normalizer).slice(0, 120)}`;
    throw tokenizerError(`tokenizer.json: llama.cpp does not compute ${found}: expected none, or NFC`);
  }
  const found = preTokenizerOf(step, model.ignore_merges === true);
  if (found !== undefined) return found;
  const known = PRE_TOKENIZERS.map(({ names }) => names[0]).join(", ");
  const merges = model.ignore_merges === true ? " with ignore_merges" : "";
  throw tokenizerError(
    `tokenizer.json: llama.cpp has no name for the pre_tokenizer ${JSON.stringify(step).slice(0, 200)}${merges}, and would cut texts otherwise than the model was trained with: expected that of ${known}, or of a SentencePiece tokenizer. Export the model as a folder instead`,
  );
}

const MARKS =
  "llama.cpp cuts words at combining marks (of Hindi, Thai, Khmer) where the model's tokenizer does not, and reads such text by other tokens";

/** Of tokens of bytes: what merges first has the lowest number. */
function byteVocabulary(file: BpeFile, size: number): VocabularyMetadata {
  const pre = preTokenizer(file);
  for (const mark of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    const value = file.model[mark] ?? "";
    if (value !== "") throw tokenizerError(`tokenizer.json: llama.cpp has no ${mark}, as ${JSON.stringify(value)}`);
  }
  const spaced = file.merges.find((merge) => merge.some((part) => part.includes(" ")));
  if (spaced !== undefined) {
    throw tokenizerError(`tokenizer.json: GGUF has no space in a merge, as ${JSON.stringify(spaced)}`);
  }
  const tokens = tokensOf(file, size);
  const entries: [string, Value][] = [
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string(pre.names[0] as string)],
    ...listed(tokens),
    ["tokenizer.ggml.merges", strings(file.merges.map((merge) => merge.join(" ")))],
  ];
  return { entries, notes: [...tokens.notes, ...(pre.cutsMarks ? [MARKS] : [])] };
}

/**
 * Where a SentencePiece tokenizer puts a space: before every text between special tokens, as llama.cpp does; before those that
 * do not begin with one; before the first of these alone.
 */
type Prefix = "none" | "every" | "always" | "first";

const PREFIX_NOTES: Readonly<Partial<Record<Prefix, string>>> = {
  always: "llama.cpp puts a space before a text that begins with one too, which the model's tokenizer does not",
  first:
    "llama.cpp puts a space before text that begins with one, and before text that follows a special token, which the model's tokenizer does not",
};

const isReplace = (step: Json): boolean =>
  step.type === "Replace" && (step.pattern as Json | undefined)?.String === " " && step.content === SPACE;

/** undefined: it does something else than put SPACE for spaces. */
function prefixOf({ normalizer, preTokenizer: step }: BpeFile): Prefix | undefined {
  if (normalizer === null) {
    if (step?.type !== "Metaspace" || step.replacement !== SPACE || step.split !== false) return undefined;
    const scheme = step.prepend_scheme ?? "always";
    return scheme === "never" ? "none" : (scheme as Prefix);
  }
  const cutsNothing = step === null || (step.type === "Split" && (step.pattern as Json | undefined)?.String === " ");
  const steps = normalizer.type === "Sequence" ? (normalizer.normalizers as Json[]) : [normalizer];
  const prepends = steps.filter(({ type, prepend }) => type === "Prepend" && prepend === SPACE).length;
  if (!cutsNothing || steps.filter(isReplace).length !== 1 || steps.length !== 1 + prepends) return undefined;
  return prepends === 0 ? "none" : "every";
}

const unlike =
  "tokenizer.json: its merges are not those of a SentencePiece tokenizer, the kind with byte_fallback that llama.cpp computes:";

/**
 * A token's score decides what merges first, whichever two parts it is made of; all parts that make a token are merged. The
 * merges of a tokenizer that came from SentencePiece are like that, others are refused.
 */
function scoresOf({ merges }: BpeFile, { texts, types }: Tokens): number[] {
  const ids = new Map(texts.flatMap((text, id) => (types[id] === TOKEN.normal ? [[text, id] as const] : [])));
  const pairs = new Set(merges.map(([left, right]) => `${left} ${right}`));
  const scores = new Array<number>(texts.length).fill(0);
  const ranked = new Set<number>();
  let before: number | undefined;
  for (const [left, right] of merges) {
    const id = ids.get(left + right);
    if (id === undefined || id === before) continue;
    if (ranked.has(id)) {
      throw tokenizerError(
        `${unlike} ${JSON.stringify(left + right)} is merged early from some parts and late from others`,
      );
    }
    scores[id] = -ranked.size;
    ranked.add(id);
    before = id;
  }
  for (const text of ids.keys()) {
    for (let cut = 1; cut < text.length; cut++) {
      const [left, right] = [text.slice(0, cut), text.slice(cut)];
      if (!ids.has(left) || !ids.has(right) || pairs.has(`${left} ${right}`)) continue;
      throw tokenizerError(
        `${unlike} ${JSON.stringify(left)} and ${JSON.stringify(right)} are not merged, though both and ${JSON.stringify(text)} are tokens`,
      );
    }
  }
  return scores;
}

function sentencePieces(file: BpeFile, size: number): VocabularyMetadata {
  const prefix = prefixOf(file);
  if (prefix === undefined) {
    const found = JSON.stringify([file.normalizer, file.preTokenizer]).slice(0, 200);
    throw tokenizerError(
      `tokenizer.json: llama.cpp does not compute the normalizer and pre_tokenizer ${found}: expected "${SPACE}" for spaces, and before a text, alone`,
    );
  }
  const tokens = tokensOf(file, size);
  for (const [id, text] of tokens.texts.entries()) {
    if (tokens.types[id] === TOKEN.userDefined) tokens.texts[id] = text.replaceAll(SPACE, " ");
    else if (tokens.types[id] === TOKEN.normal && isByte(text)) tokens.types[id] = TOKEN.byte;
    if (text === file.model.unk_token) tokens.types[id] = TOKEN.unknown;
  }
  const has = new Set(tokens.texts);
  const missing = Array.from({ length: 256 }, (_, byte) => byteToken(byte)).find((text) => !has.has(text));
  if (missing !== undefined) throw tokenizerError(`tokenizer.json has no token ${missing}, which llama.cpp needs`);
  const entries: [string, Value][] = [
    ["tokenizer.ggml.model", string("llama")],
    ["tokenizer.ggml.pre", string("default")],
    ...listed(tokens),
    ["tokenizer.ggml.scores", f32s(scoresOf(file, tokens))],
    ["tokenizer.ggml.add_space_prefix", { type: "bool", value: prefix !== "none" }],
  ];
  const note = PREFIX_NOTES[prefix];
  return { entries, notes: [...tokens.notes, ...(note === undefined ? [] : [note])] };
}

/** What a GGUF file says of tokens and merges; `size`: tokens of the model. */
export const vocabularyMetadata = (file: BpeFile, size: number): VocabularyMetadata =>
  file.model.byte_fallback === true ? sentencePieces(file, size) : byteVocabulary(file, size);
