import { show } from "../check.js";
import type { ChatMessage } from "../prompt/messages.js";
import type { CheckedReply, EnvironmentFault } from "./environment.js";

/** Fields of a reply. */
const FIELDS = new Set(["messages", "state", "reward", "detail"]);

type Checked = CheckedReply | { readonly fault: EnvironmentFault };

const bad = (expected: string, came: unknown): { readonly fault: EnvironmentFault } => ({
  fault: {
    reason: "bad-reply",
    detail: { message: `Expected ${expected} but the environment returned ${show(came)}.` },
  },
});

/** Messages that the assistant reads; a text: what is wrong with them. */
function readMessages(value: unknown): readonly ChatMessage[] | string {
  if (value === undefined || value === null) return [];
  if (typeof value === "string") return [{ role: "user", content: value }];
  if (!Array.isArray(value)) return "a text or a list of { role, content }";
  for (const [i, message] of value.entries()) {
    const { role, content } = Object(message) as Record<string, unknown>;
    if (typeof role !== "string" || typeof content !== "string")
      return `{ role, content }, both texts, as message ${i + 1}`;
    if (role === "assistant") return `a message of somebody else than the assistant as message ${i + 1}`;
  }
  return value as ChatMessage[];
}

/** A copy as JSON holds it, which whoever gave the value cannot change; throws where JSON cannot hold it. */
export const plainData = (value: unknown): unknown => JSON.parse(JSON.stringify(value) ?? "null");

const isDetail = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);

function readReply(returned: unknown, before: unknown): Checked {
  const isReply = typeof returned === "object" && returned !== null && !Array.isArray(returned);
  const given = (isReply ? returned : { messages: returned }) as Record<string, unknown>;
  const unknown = Object.keys(given).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) return bad("a reply of messages, state, reward and detail alone", returned);
  const messages = readMessages(given.messages);
  if (typeof messages === "string") return bad(messages, given.messages);
  const { reward = 0, detail = {} } = given;
  if (typeof reward !== "number" || !Number.isFinite(reward)) return bad("a finite number as reward", reward);
  if (!isDetail(detail)) return bad("an object as detail", detail);
  const state = Object.hasOwn(given, "state") ? given.state : before;
  const kept = plainData({ messages, state, detail }) as Pick<CheckedReply, "messages" | "state" | "detail">;
  // What has a `toJSON` may have become anything.
  const copied = readMessages(kept.messages);
  if (typeof copied === "string" || !isDetail(kept.detail)) return bad("plain data", kept);
  return { ...kept, reward };
}

/** What a user's code returned, as a reply; anything that is none is a fault of the environment, never a judgement of the turn. */
export function toReply(returned: unknown, before: unknown): Checked {
  try {
    return readReply(returned, before);
  } catch {
    // A circle, a BigInt, or a getter or proxy that throws.
    return bad("plain data, as JSON can hold it,", returned);
  }
}
