import { isObject, show } from "../check.js";
import type { ChatMessage } from "../prompt/messages.js";
import type { CheckedReply, EnvironmentFault, Reply } from "./environment.js";
import { emptyClassOf, lostBy, plainData } from "./plain.js";

/** Fields of a reply. */
const FIELDS = new Set(["messages", "state", "reward", "detail"]);

type Checked = CheckedReply | { readonly fault: EnvironmentFault };

const badReply = (expected: string, came: string): { readonly fault: EnvironmentFault } => ({
  fault: {
    reason: "bad-reply",
    detail: { message: `Expected ${expected} but the environment returned ${came}.` },
  },
});

const bad = (expected: string, came: unknown) => badReply(expected, emptyClassOf(came) ?? show(came));

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

const isDetail = (value: unknown): boolean => isObject(value) && emptyClassOf(value) === null;

function readReply(returned: unknown, before: unknown): Checked {
  if (emptyClassOf(returned) !== null) return bad("a reply in plain data", returned);
  const given = isObject(returned) ? returned : { messages: returned };
  const unknown = Object.keys(given).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) return bad("a reply of messages, state, reward and detail alone", returned);
  const messages = readMessages(given.messages);
  if (typeof messages === "string") return bad(messages, given.messages);
  const { reward = 0, detail = {} } = given;
  if (typeof reward !== "number" || !Number.isFinite(reward)) return bad("a finite number as reward", reward);
  if (!isDetail(detail)) return bad("an object as detail", detail);
  // The next turn would be told of another state; what is logged alone may lose what JSON has not.
  const { state } = plainData({ state: Object.hasOwn(given, "state") ? given.state : before }, true) as Reply;
  const logged: unknown = JSON.parse(JSON.stringify(detail) ?? "null");
  // What has a `toJSON` may have become anything.
  const copied = plainData(messages);
  if (typeof readMessages(copied) === "string" || !isDetail(logged)) return bad("plain data", { copied, logged });
  return { messages: copied, state, reward, detail: logged } as CheckedReply;
}

/** What a user's code returned, as a reply; anything that is none is a fault of the environment, never a judgement of the turn. */
export function toReply(returned: unknown, before: unknown): Checked {
  try {
    return readReply(returned, before);
  } catch (error) {
    // Or a circle, a BigInt, or a getter or proxy that throws.
    return badReply("plain data, as JSON can hold it,", lostBy(error) ?? show(returned));
  }
}
