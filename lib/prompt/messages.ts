import { exactJson } from "../exact-json.js";

/** What a turn of the assistant calls. */
export interface ToolCall {
  /** What a tool's turn says that it answers (`tool_call_id`). */
  readonly id?: string | undefined;
  readonly type: "function";
  /** Arguments are what JSON holds, or a BigInt: an integer beyond 2^53, which templates write with all of its digits. */
  readonly function: { readonly name: string; readonly arguments: Readonly<Record<string, unknown>> };
}

/** A tool as OpenAI describes one: {type: "function", function: {name, description, parameters}}. */
export type Tool = Readonly<Record<string, unknown>>;

/** One turn of a conversation, by the names that chat templates read. */
export interface ChatMessage {
  /** "system", "user", "assistant", "tool", or another that the template knows. */
  readonly role: string;
  /** Empty where the assistant does nothing but call tools. */
  readonly content: string;
  /** Of the assistant's turn. */
  readonly tool_calls?: readonly ToolCall[] | undefined;
  /** Of a tool's turn: which call it answers. */
  readonly tool_call_id?: string | undefined;
  /** Of a tool's turn: the function that was called. */
  readonly name?: string | undefined;
  /** The thought before an assistant's turn, for templates that write it themselves. */
  readonly reasoning_content?: string | undefined;
}

/** An assistant's turn as one text: its content, and each call as a line of JSON. */
export const turnText = ({ content, tool_calls: calls = [] }: ChatMessage): string =>
  [...(content === "" ? [] : [content]), ...calls.map((call) => exactJson(call.function))].join("\n");
