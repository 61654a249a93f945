import { dirname, join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { checkObject, checkPath, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { locatedModel } from "../hub-cache.js";
import { readFiles } from "./model-folder.js";

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

/** What a decoder shows for bytes that do not form a character (yet). */
const REPLACEMENT = "\ufffd";

export function parseTokenizerFile(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file} is not JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file}: expected an object`);
  }
  return value as Record<string, unknown>;
}

function build(json: Record<string, unknown>, config: Record<string, unknown>, file: string): Library {
  try {
    return new Library(json, config);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file}: this tokenizer is not supported: ${why}`);
  }
}

const ENCODE_FIELDS = new Set(["addSpecialTokens"]);
const DECODE_FIELDS = new Set(["skipSpecialTokens"]);

function checkIds(ids: unknown): void {
  const isList = typeof ids === "object" && ids !== null && "length" in ids && typeof ids.length === "number";
  if (!isList) throw invalid("an array of token ids", "ids", ids);
}

type Decode = (ids: ArrayLike<number>, o?: { readonly skipSpecialTokens?: boolean | undefined }) => string;

/**
 * The text that each token adds. Decoding may look at neighbours (a leading space, a character cut in two), so a piece is the
 * difference between two decodes of a short window that starts at a place where the text was whole.
 */
function streamOf(decode: Decode, o: { readonly skipSpecialTokens?: boolean }): (id: number) => string {
  let window: number[] = [];
  let settled = 0;
  // One that is left out must not stand at the start of a window: what follows would lose its leading space.
  const leftOut = (id: number): boolean =>
    o.skipSpecialTokens === true && decode([id]) !== "" && decode([id], o) === "";
  return (id) => {
    if (leftOut(id)) return "";
    window.push(id);
    const before = decode(window.slice(0, settled));
    const text = decode(window);
    if (text.endsWith(REPLACEMENT)) return "";
    window = window.slice(settled);
    settled = window.length;
    return text.slice(before.length);
  };
}

/**
 * A tokenizer from the contents of `tokenizer.json` and, where there is one, `tokenizer_config.json`.
 * `file` is what errors call it.
 */
export function createTokenizer(json: string, config = "{}", file = "tokenizer.json"): Tokenizer {
  const settings = parseTokenizerFile(config, join(dirname(file), "tokenizer_config.json"));
  const library = build(parseTokenizerFile(json, file), settings, file);
  let size = 0;
  for (const id of library.get_vocab(true).values()) size = Math.max(size, id + 1);

  const decode: Decode = (ids, o = {}) => {
    const known = Array.from(ids).filter((id) => library.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    return library.decode(known, {
      skip_special_tokens: o.skipSpecialTokens ?? false,
      // Rewriting " ." to "." would make decode(encode(x)) differ from x: only on the model's own word.
      clean_up_tokenization_spaces: settings.clean_up_tokenization_spaces === true,
    });
  };

  const stream = (o: { readonly skipSpecialTokens?: boolean } = {}) => {
    checkObject(o, "options", DECODE_FIELDS);
    return streamOf(decode, o);
  };

  return Object.freeze({
    size,
    encode: (text: string, o: { readonly addSpecialTokens?: boolean | undefined } = {}) => {
      if (typeof text !== "string") throw invalid("a text", "text", text);
      checkObject(o, "options", ENCODE_FIELDS);
      return Int32Array.from(library.encode(text, { add_special_tokens: o.addSpecialTokens ?? false }).ids);
    },
    decode: (ids: ArrayLike<number>, o: { readonly skipSpecialTokens?: boolean | undefined } = {}) => {
      checkIds(ids);
      checkObject(o, "options", DECODE_FIELDS);
      return decode(ids, o);
    },
    pieces: (ids: ArrayLike<number>) => {
      checkIds(ids);
      const feed = stream();
      const out = Array.from(ids, feed);
      const rest = decode(ids).slice(out.join("").length);
      if (out.length > 0) out[out.length - 1] += rest;
      return out;
    },
    stream,
    idOf: (token: string) => library.token_to_id(token),
  });
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");

/** The tokenizer in the small files of a model; `directory` is where errors say it is. */
export function tokenizerIn(files: ReadonlyMap<string, Uint8Array>, directory: string): Tokenizer | undefined {
  const json = files.get("tokenizer.json");
  if (json === undefined) return undefined;
  const config = files.get("tokenizer_config.json");
  return createTokenizer(text(json), config && text(config), join(directory, "tokenizer.json"));
}

/** As tokenizerIn, where there must be one. */
export function requireTokenizer(files: ReadonlyMap<string, Uint8Array>, directory: string): Tokenizer {
  const tokenizer = tokenizerIn(files, directory);
  if (tokenizer !== undefined) return tokenizer;
  throw new RlsdError(
    "ERR_RLSD_TOKENIZER",
    `${join(directory, "tokenizer.json")} does not exist: expected a tokenizer in the "tokenizers" format; older ` +
      "formats are converted by AutoTokenizer.from_pretrained(...).save_pretrained(...)",
  );
}

/** The tokenizer of a model's folder (`tokenizer.json`, `tokenizer_config.json`), of a .gguf file, or of a model in Hugging Face's cache, by its name. */
export async function loadTokenizer(model: string): Promise<Tokenizer> {
  const directory = locatedModel(checkPath(model, "model"));
  return requireTokenizer(await readFiles(directory, ["tokenizer.json", "tokenizer_config.json"]), directory);
}
