import { join } from "node:path";
import { located } from "../hub-cache.js";
import { isAdapterFolder, modelUnder } from "./adapter-folder.js";
import { GENERATION_CONFIG, readCompanions } from "./model-folder.js";
import type { PolicyOrigin } from "./origin.js";
import { tokenizerIn } from "./tokenizer.js";
import { parseTokenizerFile } from "./tokenizer-file.js";

type Files = ReadonlyMap<string, Uint8Array>;

const TOKENIZER = "tokenizer.json";
const CONFIG = "tokenizer_config.json";
const TEMPLATE = "chat_template.jinja";

function configOf(files: Files, directory: string): Record<string, unknown> {
  const bytes = files.get(CONFIG);
  return bytes === undefined ? {} : parseTokenizerFile(Buffer.from(bytes).toString("utf8"), join(directory, CONFIG));
}

/** The template that tokenizer_config.json holds, as older files do: one text, or a list of named ones. */
function embedded(files: Files, directory: string): unknown {
  const { chat_template: value } = configOf(files, directory);
  return typeof value === "string" || Array.isArray(value) ? value : undefined;
}

const hasTemplate = (files: Files, directory: string): boolean =>
  files.has(TEMPLATE) || embedded(files, directory) !== undefined;

/** `files` with the chat template of `from`. */
function withTemplate(
  files: Files,
  from: Files,
  directories: { files: string; from: string },
): Map<string, Uint8Array> {
  const out = new Map(files);
  out.delete(TEMPLATE);
  const own = from.get(TEMPLATE);
  if (own !== undefined) return out.set(TEMPLATE, own);
  const template = embedded(from, directories.from);
  if (template === undefined) return out;
  const config = { ...configOf(files, directories.files), chat_template: template };
  return out.set(CONFIG, Buffer.from(`${JSON.stringify(config, null, 2)}\n`));
}

/**
 * The small files of a model with those of adapters on it: their tokenizer where they have one, and their chat template
 * where they have one, each by itself. What ends a text stays the model's.
 */
function joinFiles(model: Files, adapters: Files, modelDirectory: string, directory: string): Files {
  const [mine, theirs] = [
    { files: adapters, at: directory },
    { files: model, at: modelDirectory },
  ];
  const text = adapters.has(TOKENIZER) ? mine : theirs;
  const chat = hasTemplate(adapters, directory) ? mine : theirs;
  const files = new Map(
    text === chat ? text.files : withTemplate(text.files, chat.files, { files: text.at, from: chat.at }),
  );
  files.delete(GENERATION_CONFIG);
  const generation = model.get(GENERATION_CONFIG);
  return generation === undefined ? files : files.set(GENERATION_CONFIG, generation);
}

/** What a policy with adapters keeps of their folder and of the model under them, which `under` is or stands on. */
export function adaptedOrigin(under: PolicyOrigin, adapters: Files, directory: string): PolicyOrigin {
  const model = under.model ?? under;
  const companions = joinFiles(model.companions, adapters, "", directory);
  const tokenizer = adapters.has(TOKENIZER)
    ? tokenizerIn(companions, directory, Number(model.json.vocab_size))
    : model.tokenizer;
  return { json: model.json, companions, tokenizer, maxSequences: model.maxSequences, model };
}

interface TextFiles {
  readonly files: Files;
  /** Where the tokenizer lies, or is missing. */
  readonly directory: string;
}

/** The small files of a model's folder, or those that a policy from a folder of adapters has; `base` as for loadPolicy. */
export async function readTextFiles(model: string, base?: string): Promise<TextFiles> {
  const directory = located(model);
  const own = await readCompanions(directory);
  if (!(await isAdapterFolder(directory))) return { files: own, directory };
  if (own.has(TOKENIZER) && hasTemplate(own, directory)) return { files: own, directory };
  const under = base === undefined ? await modelUnder(directory) : located(base);
  const files = joinFiles(await readCompanions(under), own, under, directory);
  return { files, directory: own.has(TOKENIZER) ? directory : under };
}
