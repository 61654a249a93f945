import { join } from "node:path";
import { checkObject, checkPath, invalid, isObject } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { Metadata } from "../gguf/metadata.js";
import { readGguf } from "../gguf/read.js";
import { tokenizerSettings } from "../gguf/text-files.js";
import { isGgufPath, locatedModel } from "../hub-cache.js";
import { readRegular } from "../regular-file.js";
import type { ChatMessage, Tool } from "./messages.js";
import { createTemplate } from "./template.js";

const TEMPLATE = "chat_template.jinja";
const CONFIG = "tokenizer_config.json";

/** Contents of that. */
type Config = Readonly<Record<string, unknown>>;

/** How a conversation is written. */
export interface RenderOptions {
  /** End with the words that open the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** More variables for the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
  /** What the model may call: `tools` of the template, and `xml_tools`, as SmolLM 3's first one has it. Default: what `variables` say. */
  readonly tools?: readonly Tool[] | undefined;
}

const RENDER_FIELDS = new Set(["addGenerationPrompt", "variables", "tools"]);

/** Writes a conversation as the model was trained to read it. */
export interface ChatTemplate {
  /** In Jinja; that for conversations without tools, where there are two. */
  readonly source: string;
  /** Throws ERR_RLSD_CHAT_TEMPLATE where the template refuses the conversation, fails on it or takes more than 10 s. */
  render(messages: readonly ChatMessage[], o?: RenderOptions): string;
}

/** Special tokens are given as a string or, in older files, as an object with `content`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null && "content" in value) return tokenText(value.content);
  return undefined;
}

function specialTokens(config: Config): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    const text = name.endsWith("_token") ? tokenText(value) : undefined;
    if (text !== undefined) out[name] = text;
  }
  return out;
}

/** `name`: what errors call it. */
function templateOf(source: string, config: Config, name: string): ChatTemplate {
  const attempt = <T>(what: string, body: () => T): T => {
    try {
      return body();
    } catch (error) {
      throw new RlsdError("ERR_RLSD_CHAT_TEMPLATE", `${name}: ${what}: ${messageOf(error)}`);
    }
  };
  const template = attempt("not valid Jinja", () => createTemplate(source));
  const special = specialTokens(config);
  return Object.freeze({
    source,
    render: (messages: readonly ChatMessage[], o: RenderOptions = {}) => {
      if (!Array.isArray(messages)) throw invalid("an array of { role, content }", "messages", messages);
      checkObject(o, "options", RENDER_FIELDS);
      return attempt("cannot render this conversation", () =>
        template.render({
          ...special,
          tools: null,
          ...o.variables,
          // Templates that write a frame for tools write it around an empty list too.
          ...(o.tools?.length ? { tools: o.tools, xml_tools: o.tools } : {}),
          messages,
          add_generation_prompt: o.addGenerationPrompt ?? true,
        }),
      );
    },
  });
}

/** A chat template from Jinja source. `config` is `tokenizer_config.json`: its special tokens become variables. */
export function createChatTemplate(source: string, config: Config = {}): ChatTemplate {
  if (typeof source !== "string") throw invalid("Jinja source", "source", source);
  if (typeof config !== "object" || config === null) throw invalid("an object", "config", config);
  return templateOf(source, config, "chat template");
}

async function readOptional(file: string): Promise<Uint8Array | undefined> {
  try {
    return await readRegular(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new RlsdError("ERR_RLSD_CHAT_TEMPLATE", `${file} could not be read: ${messageOf(error)}`);
  }
}

function configIn(text: string, file: string): Config {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RlsdError("ERR_RLSD_CHAT_TEMPLATE", `${file} is not JSON: ${messageOf(error)}`);
  }
  if (isObject(value)) return value as Config;
  throw new RlsdError("ERR_RLSD_CHAT_TEMPLATE", `${file}: expected an object`);
}

/** Older files keep the source in the configuration: one text, or a list with one named "default" and maybe one "tool_use". */
function embeddedSources(config: Config): { source?: string; forTools?: string } {
  const value = config.chat_template;
  if (!Array.isArray(value)) return typeof value === "string" ? { source: value } : {};
  const named = (name: string): unknown => value.find((entry: { name?: unknown }) => entry?.name === name);
  const sourceOf = (entry: unknown) => (entry as { template?: unknown } | undefined)?.template;
  const [source, forTools] = [sourceOf(named("default") ?? value[0]), sourceOf(named("tool_use"))];
  return {
    ...(typeof source === "string" && { source }),
    ...(typeof forTools === "string" && { forTools }),
  };
}

/** A template, and another in its place where there are tools. */
function withToolUse(plain: ChatTemplate, forTools: ChatTemplate): ChatTemplate {
  return Object.freeze({
    source: plain.source,
    render: (messages: readonly ChatMessage[], o?: RenderOptions) =>
      (o?.tools?.length ? forTools : plain).render(messages, o),
  });
}

/** The chat template in the small files of a model (see loadChatTemplate); `directory` is where errors say they are. */
export function chatTemplateIn(files: ReadonlyMap<string, Uint8Array>, directory: string): ChatTemplate | undefined {
  const text = (name: string): string | undefined => {
    const bytes = files.get(name);
    return bytes && Buffer.from(bytes).toString("utf8");
  };
  const file = join(directory, CONFIG);
  const config = configIn(text(CONFIG) ?? "{}", file);
  const own = text(TEMPLATE);
  const { source, forTools } = own === undefined ? embeddedSources(config) : { source: own };
  if (source === undefined) return undefined;
  const from = own === undefined ? `${file}: chat_template` : join(directory, TEMPLATE);
  const template = templateOf(source, config, from);
  return forTools === undefined ? template : withToolUse(template, templateOf(forTools, config, from));
}

/**
 * The chat template of a model's folder (`chat_template.jinja`, else `tokenizer_config.json`), of a GGUF file, or of a model in
 * Hugging Face's cache, by its name; undefined: it has none.
 *
 * @throws RlsdError ERR_RLSD_MODEL_FILE where there is no such folder, ERR_RLSD_CHAT_TEMPLATE where its files cannot be read
 */
export async function loadChatTemplate(model: string): Promise<ChatTemplate | undefined> {
  const files = new Map<string, Uint8Array>();
  const directory = locatedModel(checkPath(model, "model"));
  if (isGgufPath(directory)) {
    const settings = tokenizerSettings(new Metadata((await readGguf(directory)).metadata, directory));
    return chatTemplateIn(new Map([[CONFIG, Buffer.from(JSON.stringify(settings))]]), directory);
  }
  for (const name of [TEMPLATE, CONFIG]) {
    const content = await readOptional(join(directory, name));
    if (content !== undefined) files.set(name, content);
  }
  return chatTemplateIn(files, directory);
}
