import { isObject, show } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";

export type Fields = Readonly<Record<string, unknown>>;

/** A token that is found in a text before everything else. */
export interface Added {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

/** A `tokenizer.json` that is checked. */
interface TokenizerFile {
  readonly json: Fields;
  readonly model: Fields;
  readonly added: readonly Added[];
  /** One more than the largest id of the model's tokens. */
  readonly vocabularySize: number;
}

/** Ids below this: far beyond any vocabulary, and as many as a table of them may have. */
const MOST_TOKENS = 2 ** 24;

type Fail = (message: string) => RlsdError;

const isId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < MOST_TOKENS;

const ID = `a whole number from 0 to ${MOST_TOKENS - 1}`;

/** An object from the text of `tokenizer.json` or `tokenizer_config.json`. */
export function parseTokenizerFile(text: string, file: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RlsdError("ERR_RLSD_TOKENIZER", `${file} is not JSON: ${messageOf(error)}`);
  }
  if (!isObject(value)) throw new RlsdError("ERR_RLSD_TOKENIZER", `${file}: expected an object`);
  return value;
}

function checkAdded(tokens: unknown, fail: Fail): void {
  if (!Array.isArray(tokens)) throw fail(`expected a list for added_tokens but found ${show(tokens)}`);
  for (const [i, token] of tokens.entries()) {
    if (isObject(token) && isId(token.id) && typeof token.content === "string") continue;
    throw fail(`added_tokens[${i}]: expected a content and an id, ${ID}, but found ${show(token)}`);
  }
}

/** Of tokens and their ids, which two may share; gives one more than the largest. Entries would take three times as long as keys. */
function checkIds(vocab: Fields, tokens: readonly string[], fail: Fail): number {
  let count = 0;
  for (const token of tokens) {
    const id = vocab[token];
    if (!isId(id)) throw fail(`model.vocab: expected ${ID}, for ${show(token)} but found ${show(id)}`);
    count = Math.max(count, id + 1);
  }
  return count;
}

/** Of a Unigram: tokens and their scores, in the order of ids; gives their number. */
function checkScored({ vocab, unk_id: unknown }: Fields, fail: Fail): number {
  const list = vocab as readonly unknown[];
  const bad = list.findIndex((entry) => {
    return !Array.isArray(entry) || typeof entry[0] !== "string" || typeof entry[1] !== "number";
  });
  if (bad >= 0) throw fail(`model.vocab[${bad}]: expected a token and its score but found ${show(list[bad])}`);
  if (list.length === 0 || list.length > MOST_TOKENS) throw fail(`model.vocab has ${list.length} tokens`);
  if (unknown === undefined || unknown === null || (isId(unknown) && unknown < list.length)) return list.length;
  throw fail(`model.unk_id: expected one of the ${list.length} tokens but found ${show(unknown)}`);
}

/** Two texts: "a b" in older files, ["a", "b"] in newer ones. */
function partsOf(merge: unknown): readonly [string, string] | undefined {
  const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (!Array.isArray(parts) || parts.length !== 2 || parts.some((part) => typeof part !== "string")) return undefined;
  return parts as [string, string];
}

/** Each of two tokens that make a third: a file that lacks one of them is damaged, and texts would lose what it stands for. */
function checkMerges(
  { merges, continuing_subword_prefix: prefix }: Fields,
  tokens: ReadonlySet<string>,
  fail: Fail,
): void {
  if (!Array.isArray(merges)) throw fail(`expected a list for model.merges but found ${show(merges)}`);
  const skipped = typeof prefix === "string" ? prefix.length : 0;
  for (const [i, merge] of merges.entries()) {
    const parts = partsOf(merge);
    if (parts === undefined || Array.isArray(merge) !== Array.isArray(merges[0])) {
      throw fail(`model.merges[${i}]: expected two tokens, as in the others, but found ${show(merge)}`);
    }
    const [left, right] = parts;
    const missing = [left, right, left + right.slice(skipped)].find((part) => !tokens.has(part));
    if (missing !== undefined) throw fail(`model.merges[${i}]: ${show(missing)} is no token of model.vocab`);
  }
}

/** Gives one more than the largest id. */
function checkModel(model: unknown, fail: Fail): number {
  if (!isObject(model)) throw fail(`expected an object for model but found ${show(model)}`);
  const { type, vocab } = model;
  if (Array.isArray(vocab)) {
    if (type === undefined || type === "Unigram") return checkScored(model, fail);
    throw fail("model.vocab is a list, which is for a Unigram alone");
  }
  if (!isObject(vocab)) throw fail(`expected an object for model.vocab but found ${show(vocab)}`);
  const tokens = Object.keys(vocab);
  const count = checkIds(vocab, tokens, fail);
  if (type === "BPE" || Object.hasOwn(model, "merges")) checkMerges(model, new Set(tokens), fail);
  return count;
}

/** What it takes to find something in a text. */
const isPattern = (pattern: unknown): boolean =>
  isObject(pattern) && (typeof pattern.String === "string" || typeof pattern.Regex === "string");

/** One step of a tokenizer, and those in it: of parts that have one of these, what the library does not check. */
function checkPart(part: unknown, path: string, fail: Fail): void {
  if (part === null || part === undefined) return;
  if (!isObject(part) || typeof part.type !== "string") {
    throw fail(`${path}: expected an object with a type but found ${show(part)}`);
  }
  const { type, pattern, length } = part;
  if ((type === "Replace" || type === "Split") && !isPattern(pattern)) {
    throw fail(`${path}.pattern: expected { "String": ... } or { "Regex": ... } but found ${show(pattern)}`);
  }
  if (type === "FixedLength" && !(Number.isSafeInteger(length) && (length as number) > 0)) {
    throw fail(`${path}.length: expected a whole number above 0 but found ${show(length)}`);
  }
  if (type !== "Sequence") return;
  const name = ["normalizers", "pretokenizers", "processors", "decoders"].find((one) => Object.hasOwn(part, one));
  const parts = name === undefined ? undefined : part[name];
  if (!Array.isArray(parts)) throw fail(`${path}: expected a list of the parts of a Sequence but found ${show(part)}`);
  for (const [i, inner] of parts.entries()) checkPart(inner ?? {}, `${path}.${name}[${i}]`, fail);
}

/**
 * Of a `tokenizer.json` what the library that applies it takes on trust: it would count to an id of any size, give ids that are
 * none, or leave out of a text what a damaged vocabulary lacks.
 *
 * @throws RlsdError ERR_RLSD_TOKENIZER with the first place that is not as it should be
 */
export function checkTokenizerFile(json: Fields, file: string): TokenizerFile {
  const fail: Fail = (message) => new RlsdError("ERR_RLSD_TOKENIZER", `${file}: ${message}`);
  const vocabularySize = checkModel(json.model, fail);
  const added = json.added_tokens ?? [];
  checkAdded(added, fail);
  for (const name of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) checkPart(json[name], name, fail);
  return { json, model: json.model as Fields, added: added as readonly Added[], vocabularySize };
}
