import type { ChatMessage } from "../../prompt/messages.js";
import { parsed, toCalls } from "./tools.js";

/** A text, or a list of parts that are texts, put together; undefined: something else. */
function contentText(content: unknown): string | undefined {
  if (typeof content === "string") return content;
  if (!Array.isArray(content) || content.length === 0) return undefined;
  const texts = content.map((part) => (part?.type === "text" && typeof part.text === "string" ? part.text : undefined));
  return texts.includes(undefined) ? undefined : texts.join("");
}

/** Roles by other names: ShareGPT's and LLaMA-Factory's, ms-swift's, OpenAI's of before. */
const ROLES: Readonly<Record<string, string>> = {
  human: "user",
  gpt: "assistant",
  observation: "tool",
  tool_response: "tool",
  function: "tool",
};

/** Turns that are calls alone, as JSON: LLaMA-Factory's, ms-swift's. */
const CALLING: ReadonlySet<unknown> = new Set(["function_call", "tool_call"]);

const WITHOUT_TEXT = 'no "role" and "content" that are texts';

/** Fields of a message that are texts where they are there at all, and their names: the thought has those that transformers reads. */
const TEXTS = {
  name: ["name"],
  tool_call_id: ["tool_call_id"],
  reasoning_content: ["reasoning_content", "thinking", "reasoning"],
} as const;

type Given = Readonly<
  Record<
    "role" | "content" | "from" | "value" | "tool_calls" | "function_call" | (typeof TEXTS)[keyof typeof TEXTS][number],
    unknown
  >
>;

const speaker = (value: unknown): unknown => (Object(value) as Given).role ?? (Object(value) as Given).from;

/** A message as {role, content}, or as ShareGPT's {from, value}. A text: what is wrong with it. */
function toMessage(value: unknown): ChatMessage | string {
  const given = Object(value) as Given;
  const said = speaker(value);
  const body = given.content ?? given.value ?? null;
  if (typeof said !== "string" || said === "") return WITHOUT_TEXT;
  if (CALLING.has(said)) {
    const calls = toCalls(body);
    if (typeof calls === "string") return calls;
    return calls.length === 0 ? WITHOUT_TEXT : { role: "assistant", content: "", tool_calls: calls };
  }
  const calls = toCalls(given.tool_calls ?? given.function_call);
  if (typeof calls === "string") return calls;
  // A turn that calls need not say anything.
  const content = body === null && calls.length > 0 ? "" : contentText(body);
  if (content === undefined) return WITHOUT_TEXT;
  const texts = Object.entries(TEXTS).flatMap(([name, names]) => {
    const text = names.map((other) => given[other]).find((value) => typeof value === "string");
    return text === undefined ? [] : [[name, text]];
  });
  return {
    role: Object.hasOwn(ROLES, said) ? ROLES[said]! : said,
    content,
    ...(calls.length > 0 && { tool_calls: calls }),
    ...Object.fromEntries(texts),
  };
}

/** Several turns of the assistant in a row as one: their contents one below the other, and all that they call. */
function together(turns: readonly ChatMessage[]): ChatMessage {
  if (turns.length === 1) return turns[0]!;
  const joined = (texts: readonly (string | undefined)[]) => texts.filter((text) => text).join("\n");
  const calls = turns.flatMap((turn) => turn.tool_calls ?? []);
  const thought = joined(turns.map((turn) => turn.reasoning_content));
  return {
    role: "assistant",
    content: joined(turns.map((turn) => turn.content)),
    ...(calls.length > 0 && { tool_calls: calls }),
    ...(thought !== "" && { reasoning_content: thought }),
  };
}

/** A list of messages, as a template takes them. A text: what is wrong with it. */
function toMessages(values: readonly unknown[]): ChatMessage[] | string {
  const out: ChatMessage[] = [];
  for (const [i, value] of values.entries()) {
    const message = toMessage(value);
    if (typeof message === "string") return `message ${i + 1} has ${message}`;
    const before = out.at(-1);
    // Calls that have turns of their own belong to the assistant's turn before them, where there is one.
    if (CALLING.has(speaker(value)) && before?.role === "assistant") out[out.length - 1] = together([before, message]);
    else out.push(message);
  }
  return out;
}

/** What is asked, and how the messages answer it themselves. */
interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly reply: ChatMessage | null;
}

const isSaid = ({ content, tool_calls: calls, reasoning_content: thought }: ChatMessage): boolean =>
  content !== "" || calls !== undefined || thought !== undefined;

/** A column of messages as it is, or the list that it has as JSON, as in CSV. */
export function messagesAt(value: unknown): unknown {
  const list = typeof value === "string" ? parsed(value) : value;
  return Array.isArray(list) ? list : value;
}

/** The assistant's turns at the end are a reference answer, and no part of the question. A text: what is wrong. */
export function toConversation(value: unknown, column: string): Conversation | string {
  if (typeof value === "string") {
    if (value.trim() === "") return `column "${column}" is empty`;
    return { messages: [{ role: "user", content: value }], reply: null };
  }
  if (!Array.isArray(value) || value.length === 0) {
    return `column "${column}": expected a text or a list of {role, content}`;
  }
  const read = toMessages(value);
  if (typeof read === "string") return `column "${column}": ${read}`;
  const asked = 1 + read.findLastIndex(({ role }) => role !== "assistant");
  if (asked === 0) return `column "${column}" has no message to answer`;
  const replies = read.slice(asked);
  const reply = replies.length === 0 ? null : together(replies);
  return { messages: read.slice(0, asked), reply: reply !== null && isSaid(reply) ? reply : null };
}

/** A trace that is a list of the assistant's turns, as one; a text: what is wrong with it; undefined: it is no such list. */
export function toReply(value: unknown, column: string): ChatMessage | null | string | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const turns = toMessages(value);
  if (typeof turns === "string") return undefined;
  const other = turns.find(({ role }) => role !== "assistant");
  if (other !== undefined) {
    const whole =
      'a conversation goes into a column "messages", of which sft.turns=all learns every turn of the assistant';
    return `column "${column}": a trace has turns of the assistant alone, not of ${other.role}: ${whole}`;
  }
  const reply = together(turns);
  return isSaid(reply) ? reply : null;
}
