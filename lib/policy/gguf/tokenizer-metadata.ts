import { SPECIALS, tokenizerError } from "../../gguf/token-types.js";
import { bool, string, strings, u32, type Value } from "../../gguf/write.js";
import type { Tokenizer } from "../tokenizer.js";
import { parseTokenizerFile } from "../tokenizer-file.js";
import { bpeFile, strippingOf, vocabularyMetadata } from "./vocabulary.js";

/** What the tokenizer's part of a GGUF file is made of. */
interface TokenizerSource {
  /** The small files of the model. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** undefined: it has none. */
  readonly tokenizer: Tokenizer | undefined;
  /** Contents of config.json. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly vocabSize: number;
  readonly endTokenIds: readonly number[];
}

interface TextMetadata {
  readonly entries: readonly (readonly [string, Value])[];
  readonly notes: readonly string[];
}

interface TokenizerMetadata extends TextMetadata {
  /** Its special tokens take spaces behind them away as Phi 3's do, which llama.cpp knows by the model's name alone. */
  readonly phi: boolean;
}

const STRIPPED =
  "llama.cpp leaves spaces beside special tokens in a text, of which the model's tokenizer takes some away (lstrip, rstrip)";

type Json = Readonly<Record<string, unknown>>;

function fileOf({ files }: TokenizerSource, name: string): Json {
  const bytes = files.get(name);
  return bytes === undefined ? {} : parseTokenizerFile(Buffer.from(bytes).toString("utf8"), name);
}

/** Special tokens are given as a text or, in older files, as an object with `content`. */
const tokenText = (value: unknown): unknown =>
  typeof value === "object" && value !== null ? (value as { content?: unknown }).content : value;

/** The id of a special token, by what the text files, then the model's own say. */
function specialId(source: TokenizerSource, name: string): number | undefined {
  for (const file of ["tokenizer_config.json", "special_tokens_map.json"]) {
    const text = tokenText(fileOf(source, file)[name]);
    const id = typeof text === "string" ? source.tokenizer?.idOf(text) : undefined;
    if (id !== undefined) return id;
  }
  const id = source.json[`${name}_id`];
  return Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < source.vocabSize
    ? (id as number)
    : undefined;
}

/** Up to three tokens can end a text: the tokenizer's own where it is one of them, then the others. */
function endMetadata(source: TokenizerSource): TextMetadata & { readonly ids: readonly number[] } {
  const own = specialId(source, "eos_token");
  const said = source.endTokenIds;
  const usual = own === undefined ? [] : [own];
  const ids = said.length === 0 ? usual : [...new Set([...usual.filter((id) => said.includes(id)), ...said])];
  if (ids.length === 0) {
    throw tokenizerError(
      "the model has no end token, and llama.cpp would take one of its own: expected eos_token_id in config.json or generation_config.json, or eos_token in tokenizer_config.json",
    );
  }
  const keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
  // Readers look for one by its name where no end of a turn is said.
  const three = [ids[0], ids[1] ?? ids[0], ids[2]];
  const entries = keys.flatMap((key, i): [string, Value][] =>
    three[i] === undefined ? [] : [[`tokenizer.ggml.${key}`, u32(three[i])]],
  );
  const left = ids.slice(keys.length);
  const notes = left.length === 0 ? [] : [`GGUF has room for ${keys.length} end tokens: left out ${left.join(", ")}`];
  return { entries, notes, ids };
}

/** The ids that a tokenizer puts before and behind a text. */
function around(tokenizer: Tokenizer): { before: number[]; after: number[] } {
  const [plain, whole] = [false, true].map((addSpecialTokens) => [...tokenizer.encode("a", { addSpecialTokens })]);
  const [inner, outer] = [plain as number[], whole as number[]];
  const fits = (at: number) => inner.every((id, i) => outer[at + i] === id);
  const at = outer.findIndex((_, i) => fits(i));
  return { before: outer.slice(0, at), after: outer.slice(at + inner.length) };
}

/** What llama.cpp puts before and behind a text, as the tokenizer does it. */
function additions(source: TokenizerSource, end: number): [string, Value][] {
  const { before, after } = around(source.tokenizer as Tokenizer);
  if (before.length > 1 || after.length > 1 || (after.length === 1 && after[0] !== end)) {
    throw tokenizerError(
      `tokenizer.json puts tokens ${JSON.stringify(before)} before a text and ${JSON.stringify(after)} behind it: expected at most one before it, and the end token ${end} behind it, which are all that llama.cpp puts there`,
    );
  }
  const begin = before[0] ?? specialId(source, "bos_token");
  return [
    ...(begin === undefined ? [] : [["tokenizer.ggml.bos_token_id", u32(begin)] as [string, Value]]),
    ["tokenizer.ggml.add_bos_token", bool(before.length > 0)],
    ["tokenizer.ggml.add_eos_token", bool(after.length > 0)],
  ];
}

/** chat_template.jinja, else what tokenizer_config.json has: one text, or several by name. */
function templates(source: TokenizerSource): [string, Value][] {
  const file = source.files.get("chat_template.jinja");
  const key = "tokenizer.chat_template";
  if (file !== undefined) return [[key, string(Buffer.from(file).toString("utf8"))]];
  const value = fileOf(source, "tokenizer_config.json").chat_template;
  if (typeof value === "string") return [[key, string(value)]];
  if (!Array.isArray(value)) return [];
  const named = (value as { name?: unknown; template?: unknown }[]).filter(
    (entry): entry is { name: string; template: string } =>
      typeof entry?.name === "string" && typeof entry.template === "string",
  );
  const plain = named.find(({ name }) => name === "default") ?? named[0];
  if (plain === undefined) return [];
  const others = named.filter((entry) => entry !== plain);
  const list: [string, Value][] =
    others.length === 0 ? [] : [["tokenizer.chat_templates", strings(others.map(({ name }) => name))]];
  return [
    [key, string(plain.template)],
    ...list,
    ...others.map(({ name, template }): [string, Value] => [`${key}.${name}`, string(template)]),
  ];
}

/**
 * @throws RlsdError ERR_RLSD_TOKENIZER for a tokenizer that llama.cpp does not have
 */
export function tokenizerMetadata(source: TokenizerSource): TokenizerMetadata {
  if (source.tokenizer === undefined) {
    throw tokenizerError(
      "the model has no tokenizer.json, and programs that read GGUF files have no other tokenizer: put it and tokenizer_config.json into the model's folder",
    );
  }
  const file = bpeFile(fileOf(source, "tokenizer.json"));
  const vocabulary = vocabularyMetadata(file, source.vocabSize);
  const strips = strippingOf(file);
  const ends = endMetadata(source);
  const specials = Object.entries(SPECIALS).flatMap(([name, key]): [string, Value][] => {
    const id = specialId(source, name);
    return id === undefined ? [] : [[`tokenizer.ggml.${key}`, u32(id)]];
  });
  return {
    phi: strips === "phi",
    entries: [
      ...vocabulary.entries,
      ...ends.entries,
      ...specials,
      ...additions(source, ends.ids[0] as number),
      ...templates(source),
    ],
    notes: [...vocabulary.notes, ...ends.notes, ...(strips === "other" ? [STRIPPED] : [])],
  };
}
