import { RlsdError } from "../errors.js";
import { type ChatMessage, type Tool, turnText } from "./messages.js";
import type { Prompter } from "./prompter.js";

/** A turn of the assistant, what it answered and what it is answered. */
export interface Exchange {
  readonly before: readonly ChatMessage[];
  readonly turn: ChatMessage;
  /** At least one message. */
  readonly replies: readonly ChatMessage[];
  readonly tools?: readonly Tool[] | undefined;
}

/** Texts that no template writes. */
const [REPLY, TURN] = ["\ue000", "\ue002"];

/** How many characters two texts begin with alike. */
export function alike(a: string, b: string): number {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return at;
}

/** The last end of a turn before a place: where it begins, and where what follows it does; undefined: there is none. */
function lastEnd(text: string, before: number, ends: readonly string[]): { start: number; end: number } | undefined {
  // An end that shows no text cannot be found.
  const shown = ends.filter((end) => end !== "");
  const found = shown.map((end) => ({ start: text.lastIndexOf(end, before - end.length), length: end.length }));
  const last = found.reduce((a, b) => (b.start > a.start ? b : a), { start: -1, length: 0 });
  return last.start < 0 ? undefined : { start: last.start, end: last.start + last.length };
}

const callsTwice = ({ tool_calls: calls = [] }: ChatMessage): boolean => calls.length > 1;

/** A turn with more than one call, as a text. */
const plainly = (message: ChatMessage): ChatMessage =>
  callsTwice(message) ? { role: message.role, content: turnText(message) } : message;

/** The conversation with the exchange, a mark before what the first reply says and another in the place of the turn. */
function rendered(
  prompter: Prompter,
  { before, turn, replies, tools }: Exchange,
  marks: { reply: string; turn?: string },
) {
  const [first, ...others] = replies;
  const said = marks.turn === undefined ? turn : { role: turn.role, content: marks.turn };
  const answered = { ...first!, content: marks.reply + first!.content };
  const messages = [...before, said, answered, ...others];
  try {
    return prompter.prompt(messages, tools).text;
  } catch (error) {
    // Llama 3's refuse a turn with more than one call, which the model may draw all the same.
    if (!messages.some(callsTwice)) throw error;
    return prompter.prompt(messages.map(plainly), tools).text;
  }
}

/**
 * The text that the model reads between a turn that it drew and its next one, as its chat template writes it: the end of the turn
 * where it did not draw one, the replies, and what opens the next turn. What it drew stays as it drew it, also where the template
 * would write it otherwise. A model without a template reads the contents alone.
 *
 * @param ends texts of the tokens that end a turn
 * @param ended the turn was ended by one of these
 * @throws RlsdError ERR_RLSD_PROMPT when the template does not show the turn or the replies
 */
export function continuation(prompter: Prompter, exchange: Exchange, ends: readonly string[], ended: boolean): string {
  if (!prompter.chat) return exchange.replies.map(({ content }) => content).join("");
  const text = rendered(prompter, exchange, { reply: "" });
  const begin = alike(text, rendered(prompter, exchange, { reply: REPLY }));
  if (begin === text.length)
    throw new RlsdError("ERR_RLSD_PROMPT", "the model's chat template leaves out what is replied");
  const end = lastEnd(text, begin, ends);
  if (end !== undefined) return text.slice(ended ? end.end : end.start);
  // A template that ends turns with nothing, or with what the model does not draw.
  const marked = rendered(prompter, exchange, { reply: "", turn: TURN });
  const place = marked.indexOf(TURN!);
  if (place >= 0) return marked.slice(place + TURN!.length);
  throw new RlsdError("ERR_RLSD_PROMPT", "the model's chat template leaves out the assistant's turn before a reply");
}

const call = { id: "call00000", type: "function" as const, function: { name: "lookup", arguments: {} } };

/**
 * Throws ERR_RLSD_PROMPT where a conversation cannot go on in the words of this model's template: it refuses a reply, or leaves it
 * out. `asked` is a prompt.
 */
export function checkContinues(
  prompter: Prompter,
  { messages, tools }: { readonly messages: readonly ChatMessage[]; readonly tools: readonly Tool[] },
  ends: readonly string[],
): void {
  const [turn, replies] =
    tools.length === 0
      ? [{ role: "assistant", content: "a" }, [{ role: "user", content: "b" }]]
      : [
          { role: "assistant", content: "", tool_calls: [call] },
          [{ role: "tool", content: "b", name: "lookup", tool_call_id: call.id }],
        ];
  const missing = prompter.leavesOut([...messages, turn, ...replies], tools);
  if (missing !== undefined) throw new RlsdError("ERR_RLSD_PROMPT", missing);
  continuation(prompter, { before: messages, turn, replies, tools }, ends, true);
}
