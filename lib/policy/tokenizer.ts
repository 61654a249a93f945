import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { checkObject, checkPath, invalid, isNumber, show } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { locatedModel } from "../hub-cache.js";
import { type Decoder, decoderOfBytes, decoderOfTokens, type Vocabulary } from "./decoder.js";
import { readFiles } from "./model-folder.js";
import { type Limit, patternLimit } from "./pattern-limit.js";
import { unicodePreTokenizer } from "./pre-tokenizer.js";
import { byteDecoder, byteLevelText } from "./token-bytes.js";
import { type Added, checkTokenizerFile, type Fields, parseTokenizerFile } from "./tokenizer-file.js";
import { beforeBytes, rememberWords, wordsOf } from "./word-cache.js";

/** Text to ids and back, as the model's `tokenizer.json` says. Every method is pure. */
export interface Tokenizer {
  /** One more than the largest id it knows; a model's vocabulary may be padded beyond it. */
  readonly size: number;
  /** Ids of `text`. With `addSpecialTokens` (default false) the tokenizer's own begin and end tokens too. */
  encode(text: string, o?: { readonly addSpecialTokens?: boolean | undefined }): Int32Array;
  /** Text of the ids; ids it does not know have none. `skipSpecialTokens` (default false) leaves special tokens out. */
  decode(ids: ArrayLike<number>, o?: { readonly skipSpecialTokens?: boolean | undefined }): string;
  /** The text each id adds: their concatenation is `decode(ids)`. A character cut between ids goes to its last one. */
  pieces(ids: ArrayLike<number>): string[];
  /** Feeds ids one at a time; returns the text each one completes. `skipSpecialTokens` as in `decode`. */
  stream(o?: { readonly skipSpecialTokens?: boolean }): (id: number) => string;
  /** The id of a whole token such as `<|im_end|>`, or undefined. */
  idOf(token: string): number | undefined;
}

/** The library's parts for a tokenizer, and how a word that they leave is written in its vocabulary; undefined: they leave whole texts. */
function partsOf(json: Fields): { readonly parts: Fields; readonly write?: (word: string) => string } {
  const { pre_tokenizer: given, model } = json;
  const split = given ? unicodePreTokenizer(given) : given;
  const unwritten = beforeBytes(split);
  if (unwritten !== undefined) return { parts: { ...json, ...unwritten }, write: byteLevelText };
  const words = wordsOf(model);
  if (words === undefined || given === undefined) return { parts: given ? { ...json, pre_tokenizer: split } : json };
  const pre_tokenizer = split === null ? words : { type: "Sequence", pretokenizers: [split, words] };
  return { parts: { ...json, pre_tokenizer }, write: (word) => word };
}

const NOT_SUPPORTED = "this tokenizer is not supported";

/** The library may fail on parts that are not checked, and has errors of its own. */
function attempt<T>(file: string, what: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof RlsdError) throw error;
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file}: ${what}: ${messageOf(error)}`, { cause: error });
  }
}

function build(json: Fields, config: Fields, file: string, limited: Limit): Library {
  const { unk_token } = json.model as Fields;
  return attempt(file, NOT_SUPPORTED, () => {
    const { parts, write } = partsOf(json);
    // Of a WordLevel the library looks for the unknown token in the configuration alone.
    const own = { unk_token: unk_token ?? config.unk_token, additional_special_tokens: [] };
    const library = new Library(parts, { ...config, ...own });
    if (write !== undefined) rememberWords(library, write);
    // A post_processor that is none is found by its use alone.
    limited(0, () => library.encode("", { add_special_tokens: true }));
    return library;
  });
}

/** Ids of special tokens: of those that the tokenizer has as such, and those that its configuration adds. */
function specialIds(added: readonly Added[], config: Fields, library: Library): Set<number> {
  const more = Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens : [];
  const named = more.map((token: unknown) => (typeof token === "string" ? library.token_to_id(token) : undefined));
  return new Set([
    ...added.filter(({ special }) => special).map(({ id }) => id),
    ...named.filter((id) => id !== undefined),
  ]);
}

function decoderOf(json: Fields, vocabulary: Vocabulary, library: Library): Decoder {
  const bytes = byteDecoder(json.decoder);
  if (bytes !== undefined) return decoderOfBytes(bytes, vocabulary);
  // Rewriting " ." to "." would make decode(encode(x)) differ from x, and leave no text that a token adds.
  const plain = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
  return decoderOfTokens((ids) => library.decode(ids, plain), vocabulary);
}

const ENCODE_FIELDS = new Set(["addSpecialTokens"]);
const DECODE_FIELDS = new Set(["skipSpecialTokens"]);

/** Of an array. */
const LENGTH = { min: 0, max: 2 ** 32 - 1 };

function checkIds(ids: unknown): void {
  const isList = typeof ids === "object" && ids !== null && "length" in ids && isNumber(ids.length, LENGTH);
  if (!isList) throw invalid("an array of token ids", "ids", ids);
}

const leftOut = new WeakMap<Tokenizer, readonly Added[]>();

/** `vocabSize`: of the model that reads the ids; an added token beyond it is no token, and its text one like any other. */
function make(json: string, config: string, file: string, vocabSize: number): Tokenizer {
  const settings = parseTokenizerFile(config, join(dirname(file), "tokenizer_config.json"));
  const whole = attempt(file, NOT_SUPPORTED, () => checkTokenizerFile(parseTokenizerFile(json, file), file));
  const beyond = whole.added.filter(({ id }) => id >= vocabSize);
  const added = whole.added.filter(({ id }) => id < vocabSize);
  const limit = (...parts: readonly unknown[]) => attempt(file, NOT_SUPPORTED, () => patternLimit(parts, file));
  const limited = limit(whole.json.normalizer, whole.json.pre_tokenizer);
  const limitedBack = limit(whole.json.decoder);
  const library = build({ ...whole.json, added_tokens: added }, settings, file, limited);
  const size = added.reduce((count, { id }) => Math.max(count, id + 1), whole.vocabularySize);

  const tokenOf = (id: number) => (id >= 0 && id < size ? library.id_to_token(id) : undefined);
  const decoder = decoderOf(whole.json, { tokenOf, special: specialIds(added, settings, library) }, library);
  const decode = (ids: ArrayLike<number>, skip: boolean) =>
    attempt(file, "ids could not be decoded", () => limitedBack(ids.length, () => decoder.decode(ids, skip)));
  const stream = (skip: boolean) => {
    const next = decoder.stream(skip);
    return (id: number) => attempt(file, "an id could not be decoded", () => limitedBack(1, () => next(id)));
  };
  const encode = (given: string, addSpecialTokens: boolean): Int32Array => {
    const { ids, tokens } = attempt(file, "a text could not be encoded", () =>
      limited(given.length, () => library.encode(given, { add_special_tokens: addSpecialTokens })),
    );
    // The library has no id, whatever its types say, where there is no token for unknown words.
    const missing = (ids as (number | undefined)[]).indexOf(undefined);
    if (missing < 0) return Int32Array.from(ids);
    const why = `it has no token for ${show(tokens[missing])}, and none for what is unknown`;
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file}: ${why}`);
  };

  const tokenizer: Tokenizer = Object.freeze({
    size,
    encode: (text: string, o: { readonly addSpecialTokens?: boolean | undefined } = {}) => {
      if (typeof text !== "string") throw invalid("a text", "text", text);
      checkObject(o, "options", ENCODE_FIELDS);
      return encode(text, o.addSpecialTokens ?? false);
    },
    decode: (ids: ArrayLike<number>, o: { readonly skipSpecialTokens?: boolean | undefined } = {}) => {
      checkIds(ids);
      checkObject(o, "options", DECODE_FIELDS);
      return decode(ids, o.skipSpecialTokens ?? false);
    },
    pieces: (ids: ArrayLike<number>) => {
      checkIds(ids);
      const out = Array.from(ids, stream(false));
      const rest = decode(ids, false).slice(out.join("").length);
      if (out.length > 0) out[out.length - 1] += rest;
      return out;
    },
    stream: (o: { readonly skipSpecialTokens?: boolean } = {}) => {
      checkObject(o, "options", DECODE_FIELDS);
      return stream(o.skipSpecialTokens ?? false);
    },
    idOf: (token: string) => library.token_to_id(token),
  });
  leftOut.set(tokenizer, beyond);
  return tokenizer;
}

/** Added tokens that the model which reads a tokenizer's ids does not have. */
export const tokensBeyond = (tokenizer: Tokenizer): readonly Added[] => leftOut.get(tokenizer) ?? [];

/**
 * A tokenizer from the contents of `tokenizer.json` and, where there is one, `tokenizer_config.json`.
 * `file` is what errors call it.
 */
export const createTokenizer = (json: string, config = "{}", file = "tokenizer.json"): Tokenizer =>
  make(json, config, checkPath(file, "file"), Number.POSITIVE_INFINITY);

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");

/** Tokenizers in use, by what their files hold: one takes seconds and a hundred megabytes, and a run has several policies. */
const inUse = new Map<string, WeakRef<Tokenizer>>();

type Files = ReadonlyMap<string, Uint8Array>;

const [JSON_FILE, CONFIG_FILE] = ["tokenizer.json", "tokenizer_config.json"];

/**
 * The tokenizer in the small files of a model of `vocabSize`, whose added tokens beyond that are plain text: Gemma 3's has one
 * for images, and its smallest model none. `directory` is where errors say the files are.
 */
export function tokenizerIn(files: Files, directory: string, vocabSize: number): Tokenizer | undefined {
  const json = files.get(JSON_FILE);
  if (json === undefined) return undefined;
  const config = files.get(CONFIG_FILE);
  const digest = (content: Uint8Array | string) => createHash("sha256").update(content).digest("hex");
  const key = [digest(json), digest(config ?? ""), vocabSize].join();
  const found = inUse.get(key)?.deref();
  if (found !== undefined) return found;
  const made = make(text(json), config ? text(config) : "{}", join(directory, JSON_FILE), vocabSize);
  inUse.set(key, new WeakRef(made));
  return made;
}

/** As tokenizerIn, where there must be one. */
export function requireTokenizer(files: Files, directory: string, vocabSize: number): Tokenizer {
  const tokenizer = tokenizerIn(files, directory, vocabSize);
  if (tokenizer !== undefined) return tokenizer;
  throw new RlsdError(
    "ERR_RLSD_TOKENIZER",
    `${join(directory, JSON_FILE)} does not exist: expected a tokenizer in the "tokenizers" format; older ` +
      "formats are converted by AutoTokenizer.from_pretrained(...).save_pretrained(...)",
  );
}

/** The tokenizer of a model's folder (`tokenizer.json`, `tokenizer_config.json`), of a .gguf file, or of a model in Hugging Face's cache, by its name. */
export async function loadTokenizer(model: string): Promise<Tokenizer> {
  const directory = locatedModel(checkPath(model, "model"));
  return requireTokenizer(await readFiles(directory, [JSON_FILE, CONFIG_FILE]), directory, Number.POSITIVE_INFINITY);
}
