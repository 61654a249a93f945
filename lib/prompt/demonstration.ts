import { RlsdError } from "../errors.js";
import { alike } from "./continuation.js";
import { type ChatMessage, type Tool, turnText } from "./messages.js";
import type { Prompter } from "./prompter.js";

/** What the model is to say after a prompt, its end token included. */
export interface Demonstration {
  readonly text: string;
  readonly ids: Int32Array;
}

/** A conversation, and what the assistant is to say then. */
interface Shown {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly Tool[] | undefined;
  readonly reply: ChatMessage;
}

/** A thought that a prompt opens at its very end, as templates of reasoning models do. */
const OPENED = /<(think|thinking|thought|reasoning)>\s*$/;

/** A reply behind a prompt that may have opened its first tag already: that one is not said again. */
function behindTag(prompt: string, reply: string): string {
  const opened = OPENED.exec(prompt);
  if (opened === null || !reply.includes(`</${opened[1]}>`)) return reply;
  const tag = `<${opened[1]}>`;
  const begin = reply.trimStart();
  if (!begin.startsWith(tag)) return reply;
  const said = begin.slice(tag.length);
  // The white space behind the tag is the prompt's.
  return /\s$/.test(prompt) ? said.trimStart() : said;
}

/** A character that no template writes. */
const MARK = "\ue000";

/**
 * What is said behind a prompt. That is the template's word for the assistant's turn where it begins as the prompt does;
 * where it does not (templates that leave thoughts out of earlier turns, or a system message out of all but the last), the
 * reply and what the template puts around one.
 */
function said(prompter: Prompter, prompt: string, { messages, tools, reply }: Shown): string {
  const { content, tool_calls: calls, ...turn } = reply;
  const rendered = prompter.answered(messages, reply, tools) ?? prompt + content;
  if (rendered.startsWith(prompt)) return rendered.slice(prompt.length);
  const own = behindTag(prompt, content).trimEnd();
  const marked = (more: object) => prompter.answered(messages, { ...turn, ...more, content: MARK }, tools)!;
  if (calls === undefined) return own + (marked({}).split(MARK)[1] ?? "");
  // Calls stand behind the content, before it (DeepSeek's) or in its place (Mistral's).
  const withCalls = marked({ tool_calls: calls });
  const place = withCalls.indexOf(MARK);
  const begin = alike(marked({}), place < 0 ? rendered : withCalls);
  if (place < 0) return rendered.slice(begin);
  const before = withCalls.slice(Math.min(begin, place), place);
  const behind = withCalls.slice(place + MARK.length);
  // What separates calls from a content is not there without one.
  return before + (own === "" ? behind.trimStart() : own + behind);
}

/** A thought that the prompt opens must end, or the model would learn never to answer. */
function requireClosed(prompt: string, text: string): void {
  const opened = OPENED.exec(prompt)?.[1];
  if (opened === undefined || text.includes(`</${opened}>`)) return;
  throw new RlsdError(
    "ERR_RLSD_PROMPT",
    `the prompt ends with <${opened}>, which the trace never closes: write the thought, </${opened}> and the answer, ` +
      "or let the template open none (many take data.templateVariables: { enable_thinking: false })",
  );
}

/** Ids of a text behind a prompt: as the two are read together, where that begins with the prompt's ids. */
function idsBehind(prompter: Prompter, prompt: Demonstration, text: string): Int32Array {
  const whole = prompter.encode(prompt.text + text);
  const alike = whole.length > prompt.ids.length && prompt.ids.every((id, i) => whole[i] === id);
  return alike ? whole.slice(prompt.ids.length) : prompter.encode(text);
}

/**
 * A reply as the model would have to draw it: the words of its chat template up to the first end token, or one
 * behind them.
 *
 * @param prompt of the messages, by the same prompter
 * @param endTokenIds that end a completion, the likeliest first; none: the text is taken as it is
 * @throws RlsdError ERR_RLSD_PROMPT when nothing is said, or a thought that the prompt opens never ends
 */
export function demonstration(
  prompter: Prompter,
  prompt: Demonstration,
  shown: Shown,
  endTokenIds: readonly number[],
): Demonstration {
  if (prompter.encode(turnText(shown.reply).trim()).length === 0)
    throw new RlsdError("ERR_RLSD_PROMPT", "the trace has no tokens");
  const text = said(prompter, prompt.text, shown);
  requireClosed(prompt.text, text);
  const ids = idsBehind(prompter, prompt, text);
  const end = ids.findIndex((id) => endTokenIds.includes(id));
  if (end >= 0) return { text, ids: ids.slice(0, end + 1) };
  return { text, ids: endTokenIds.length === 0 ? ids : Int32Array.of(...ids, endTokenIds[0]!) };
}
