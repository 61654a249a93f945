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

/** What a user's code returned, as a reply; anything that is none is a fault of the environment, never a judgement of the turn. */
export function toReply(returned: unknown, before: unknown): Checked {
  const isReply = typeof returned === "object" && returned !== null && !Array.isArray(returned);
  const given = (isReply ? returned : { messages: returned }) as Record<string, unknown>;
  const unknown = Object.keys(given).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) return bad("a reply of messages, state, reward and detail alone", returned);
  const messages = readMessages(given.messages);
  if (typeof messages === "string") return bad(messages, given.messages);
  const { reward = 0, detail = {} } = given;
  if (typeof reward !== "number" || !Number.isFinite(reward)) return bad("a finite number as reward", reward);
  if (typeof detail !== "object" || detail === null) return bad("an object as detail", detail);
  let kept: unknown;
  try {
    kept = plainData({ messages, state: Object.hasOwn(given, "state") ? given.state : before, detail });
  } catch {
    return bad("plain data, as JSON can hold it,", returned);
  }
  return { ...(kept as Pick<CheckedReply, "messages" | "state" | "detail">), reward };
}
