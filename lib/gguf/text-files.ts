import type { Metadata } from "./metadata.js";
import { PRE_TOKENIZERS, preTokenizerJson } from "./pre-tokenizers.js";
import { byteToken, SPACE, SPECIALS, TOKEN, tokenizerError } from "./token-types.js";

/** Small files of a model's folder, made of what a GGUF file says of its tokenizer. */

type Json = Readonly<Record<string, unknown>>;

const KEY = "tokenizer.ggml.";

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
}

function vocabularyOf(m: Metadata): Vocabulary {
  const tokens = m.texts(`${KEY}tokens`);
  if (tokens === undefined) throw m.fail(`${KEY}tokens`, "a list of texts");
  const types = m.numbers(`${KEY}token_type`) ?? tokens.map(() => TOKEN.normal);
  if (types.length !== tokens.length) throw m.fail(`${KEY}token_type`, `${tokens.length} numbers`);
  return { tokens, types };
}

/** Tokens that are found in a text before everything else. */
const isAdded = (type: number | undefined): boolean => type === TOKEN.control || type === TOKEN.userDefined;

const addedTokens = ({ tokens, types }: Vocabulary, stripsRight: (token: string) => boolean): Json[] =>
  tokens.flatMap((content, id) =>
    isAdded(types[id]) || (types[id] === TOKEN.unknown && content !== "")
      ? [
          {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: stripsRight(content),
            normalized: false,
            special: types[id] !== TOKEN.userDefined,
          },
        ]
      : [],
  );

/** Without those that nothing is read as. */
const vocabularyJson = ({ tokens, types }: Vocabulary): Json =>
  Object.fromEntries(tokens.flatMap((text, id) => (types[id] === TOKEN.unused ? [] : [[text, id]])));

/** Puts the tokens that begin and end a text around it. */
function processor({ tokens }: Vocabulary, begin: number | undefined, end: number | undefined): Json | null {
  if (begin === undefined && end === undefined) return null;
  const special = (id: number | undefined, type: number) =>
    id === undefined ? [] : [{ SpecialToken: { id: tokens[id], type_id: type } }];
  const sequence = (id: string, type: number) => [
    ...special(begin, type),
    { Sequence: { id, type_id: type } },
    ...special(end, type),
  ];
  const named = [begin, end].flatMap((id) => (id === undefined ? [] : [id]));
  return {
    type: "TemplateProcessing",
    single: sequence("A", 0),
    pair: [...sequence("A", 0), ...sequence("B", 1)],
    special_tokens: Object.fromEntries(
      named.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

interface Kind {
  readonly model: Json;
  readonly normalizer: Json | null;
  readonly preTokenizer: Json | null;
  readonly decoder: Json;
  readonly addsBegin: boolean;
}

const bpe = (own: Json): Json => ({
  type: "BPE",
  dropout: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  ...own,
});

function ofBytes(m: Metadata, vocabulary: Vocabulary): Kind {
  const name = m.text(`${KEY}pre`);
  const pre = PRE_TOKENIZERS.find(({ names }) => name !== undefined && names.includes(name));
  if (pre === undefined) {
    const known = PRE_TOKENIZERS.flatMap(({ names }) => names).join(", ");
    throw tokenizerError(
      `${m.file}: ${KEY}pre ${JSON.stringify(name)} is not supported: expected one of ${known}. Name the model's Hugging Face folder instead, which has its tokenizer.json`,
    );
  }
  const merges = m.texts(`${KEY}merges`);
  if (merges === undefined) throw m.fail(`${KEY}merges`, "a list of texts");
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    model: bpe({
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: vocabularyJson(vocabulary),
      merges: merges.map((merge) => splitMerge(merge, m)),
    }),
    normalizer: pre.composed === true ? { type: "NFC" } : null,
    preTokenizer: preTokenizerJson(pre),
    decoder: bytes,
    addsBegin: pre.addsBegin === true,
  };
}

/** A part may begin with the space that ends others. */
function splitMerge(merge: string, m: Metadata): [string, string] {
  const at = merge.indexOf(" ", 1);
  if (at < 0) throw m.fail(`${KEY}merges`, `two parts in each, not ${JSON.stringify(merge.slice(0, 80))}`);
  return [merge.slice(0, at), merge.slice(at + 1)];
}

/** Longest piece, far beyond those of any SentencePiece tokenizer: cutting one takes the square of it. */
const LONGEST_PIECE = 128;

/** What merges: what makes the token of the highest score first. */
function mergesOf({ tokens, types }: Vocabulary, scores: readonly number[], file: string): [string, string][] {
  const normal = tokens.map((_, id) => id).filter((id) => types[id] === TOKEN.normal);
  const pieces = new Set(normal.map((id) => tokens[id] as string));
  const merges: [string, string][] = [];
  for (const id of normal.sort((a, b) => (scores[b] as number) - (scores[a] as number))) {
    const text = tokens[id] as string;
    if (text.length > LONGEST_PIECE) {
      throw tokenizerError(`${file}: token ${id} has ${text.length} characters: expected at most ${LONGEST_PIECE}`);
    }
    for (let at = 1; at < text.length; at++) {
      const parts: [string, string] = [text.slice(0, at), text.slice(at)];
      if (pieces.has(parts[0]) && pieces.has(parts[1])) merges.push(parts);
    }
  }
  return merges;
}

function ofPieces(m: Metadata, vocabulary: Vocabulary): Kind {
  const { tokens, types } = vocabulary;
  const scores = m.numbers(`${KEY}scores`);
  if (scores === undefined || scores.length !== tokens.length) throw m.fail(`${KEY}scores`, `${tokens.length} numbers`);
  const has = new Set(tokens);
  const missing = Array.from({ length: 256 }, (_, byte) => byteToken(byte)).find((text) => !has.has(text));
  if (missing !== undefined) throw tokenizerError(`${m.file} has no token ${missing}: expected one for each byte`);
  const prefixed = m.boolean(`${KEY}add_space_prefix`) ?? true;
  const replace = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const unknown = types.indexOf(TOKEN.unknown);
  return {
    model: bpe({
      unk_token: unknown < 0 ? null : tokens[unknown],
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: vocabularyJson(vocabulary),
      merges: mergesOf(vocabulary, scores, m.file),
    }),
    normalizer: prefixed ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: SPACE }, replace] } : replace,
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: SPACE }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefixed ? [strip] : []),
      ],
    },
    addsBegin: true,
  };
}

/** An id that a part of its own has, where it is one of the tokens. */
function idOf(m: Metadata, key: string, { tokens }: Vocabulary, usual?: number): number | undefined {
  const id = m.optional(KEY + key) ?? usual;
  return id !== undefined && tokens[id] !== undefined ? id : undefined;
}

/** Names of tokens that end a turn, where a file does not say which does, as llama.cpp finds it. */
const TURN_ENDS = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>", "<EOT>", "_<EOT>"];

/** Ids that end a completion; empty: the file has no tokenizer. */
export function endTokens(m: Metadata): number[] {
  if (m.texts(`${KEY}tokens`) === undefined) return [];
  const vocabulary = vocabularyOf(m);
  const named = (texts: readonly string[]): number | undefined => {
    const ids = texts.map((text) => vocabulary.tokens.indexOf(text));
    return ids.find((id) => isAdded(vocabulary.types[id]));
  };
  const end = endOf(m, vocabulary);
  const said = [idOf(m, "eot_token_id", vocabulary), idOf(m, "eom_token_id", vocabulary)];
  const found = said.some((id) => id !== undefined) ? said : [named(TURN_ENDS), named(["<|eom_id|>"])];
  return [...new Set([end, ...found])].filter((id) => id !== undefined);
}

const isPieces = (m: Metadata): boolean => m.text(`${KEY}model`) === "llama";

/** The tokens that begin and end a text, as llama.cpp takes them where the file does not say. */
const beginOf = (m: Metadata, v: Vocabulary) => idOf(m, "bos_token_id", v, isPieces(m) ? 1 : undefined);
const endOf = (m: Metadata, v: Vocabulary) => idOf(m, "eos_token_id", v, isPieces(m) ? 2 : undefined);

const hasTokenizer = (m: Metadata): boolean => ![undefined, "no_vocab", "none"].includes(m.text(`${KEY}model`));

/** What tokenizer_config.json would say: special tokens, and every chat template of the file. */
export function tokenizerSettings(m: Metadata): Json {
  if (!hasTokenizer(m)) return {};
  const vocabulary = vocabularyOf(m);
  const others = Object.entries(SPECIALS).map(([name, key]) => [name, idOf(m, key, vocabulary)] as const);
  const ids = [["bos_token", beginOf(m, vocabulary)], ["eos_token", endOf(m, vocabulary)], ...others] as const;
  const specials = ids.flatMap(([name, id]) => (id === undefined ? [] : [[name, vocabulary.tokens[id]]]));
  const template = m.text("tokenizer.chat_template");
  const more = (m.texts("tokenizer.chat_templates") ?? []).map((name) => ({
    name,
    template: m.text(`tokenizer.chat_template.${name}`) ?? "",
  }));
  const named = template === undefined ? more : [{ name: "default", template }, ...more];
  return {
    ...Object.fromEntries(specials),
    clean_up_tokenization_spaces: false,
    ...(named.length > 0 && { chat_template: more.length === 0 ? template : named }),
  };
}

/** Spaces behind special tokens are taken away where the model's name has Phi 3's in it, as in llama.cpp. */
function stripping(m: Metadata): (token: string) => boolean {
  const name = m.text("general.name")?.toLowerCase() ?? "";
  const phi = name.includes("phi-3") || name.includes("phi3");
  return (token) => phi && !["<unk>", "<s>", "<|endoftext|>"].includes(token);
}

function tokenizerJson(m: Metadata): Json {
  const kind = m.text(`${KEY}model`);
  if (kind !== "gpt2" && kind !== "llama") {
    throw tokenizerError(`${m.file}: ${KEY}model ${JSON.stringify(kind)} is not supported: expected "gpt2" or "llama"`);
  }
  const vocabulary = vocabularyOf(m);
  const own = kind === "gpt2" ? ofBytes(m, vocabulary) : ofPieces(m, vocabulary);
  const begin = (m.boolean(`${KEY}add_bos_token`) ?? own.addsBegin) ? beginOf(m, vocabulary) : undefined;
  const end = m.boolean(`${KEY}add_eos_token`) ? endOf(m, vocabulary) : undefined;
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, stripping(m)),
    normalizer: own.normalizer,
    pre_tokenizer: own.preTokenizer,
    post_processor: processor(vocabulary, begin, end),
    decoder: own.decoder,
    model: own.model,
  };
}

/** Slow to make, of a large vocabulary; kept as long as the metadata are. */
const made = new WeakMap<object, ReadonlyMap<string, Uint8Array>>();

/**
 * tokenizer.json and tokenizer_config.json of a GGUF file; none where it has no tokenizer.
 *
 * @throws RlsdError ERR_RLSD_TOKENIZER for a tokenizer of another kind
 */
export function textFiles(m: Metadata): ReadonlyMap<string, Uint8Array> {
  if (!hasTokenizer(m)) return new Map();
  const known = made.get(m.values);
  if (known !== undefined) return known;
  const files = new Map(
    Object.entries({ "tokenizer.json": tokenizerJson(m), "tokenizer_config.json": tokenizerSettings(m) }).map(
      ([name, json]) => [name, Buffer.from(JSON.stringify(json))],
    ),
  );
  made.set(m.values, files);
  return files;
}
