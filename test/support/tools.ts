import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exactJson, parseExact } from "../../lib/exact-json.js";
import { createTokenizer } from "../../lib/policy/tokenizer.js";
import { type ChatTemplate, createChatTemplate } from "../../lib/prompt/chat-template.js";
import type { ChatMessage, Tool, ToolCall } from "../../lib/prompt/messages.js";
import { toTools } from "../../lib/trainer/data/tools.js";

export const fixtures = join(__dirname, "../fixtures");
export const readFixture = (...path: string[]): string => readFileSync(join(fixtures, ...path), "utf8");
export const TOKENIZER = readFixture("models/tokenizer-bpe/tokenizer.json");
export const tokenizer = createTokenizer(TOKENIZER);

interface Given {
  readonly messages: readonly unknown[];
  readonly tools?: readonly unknown[];
}
export const conversations = parseExact(readFixture("tools/conversations.json")) as Record<string, Given>;
type Rendered = string | { readonly error: string };
/** What transformers makes of each conversation by each template, with the words that open a turn and without. */
export const expected = JSON.parse(readFixture("tools/expected.json")) as Record<
  string,
  Record<string, [Rendered, Rendered]>
>;
export const template = (name: string): ChatTemplate =>
  createChatTemplate(readFixture("tools", `${name}.jinja`), { bos_token: "<s>" });

export function toolsOf(given: unknown): readonly Tool[] {
  const tools = toTools(given);
  if (typeof tools === "string") throw new Error(tools);
  return tools;
}

export const [weather] = conversations.tools!.tools as [{ function: object }];
export const ask = { role: "user", content: "The weather in Bern?" };
export const call: ChatMessage & { readonly tool_calls: readonly ToolCall[] } = {
  role: "assistant",
  content: "",
  tool_calls: [{ type: "function", function: { name: "weather", arguments: { city: "Bern" } } }],
};
export const result = { role: "tool", content: "3" };

/** A new file with these rows. */
export function rowsFile(rows: readonly unknown[]): string {
  const file = join(mkdtempSync(join(tmpdir(), "rlsd-tools-")), "rows.jsonl");
  writeFileSync(file, rows.map((row) => exactJson(row)).join("\n"));
  return file;
}
