import { RlsdError } from "../errors.js";
import type { ChatTemplate } from "./chat-template.js";
import { leftOut } from "./left-out.js";
import type { ChatMessage, Tool } from "./messages.js";

/** The part of a tokenizer that prompts need. */
interface Encoder {
  encode(text: string, o?: { readonly addSpecialTokens?: boolean }): Int32Array;
  decode(ids: ArrayLike<number>): string;
}

/** Writes conversations as prompts of one model. */
export interface Prompter extends Encoder {
  /** Whether a template tells the turns of a conversation apart. */
  readonly chat: boolean;
  /** The prompt as text and as the ids of that text. */
  prompt(
    messages: readonly ChatMessage[],
    tools?: readonly Tool[],
  ): { readonly text: string; readonly ids: Int32Array };
  ids(messages: readonly ChatMessage[], tools?: readonly Tool[]): Int32Array;
  /** The conversation with the assistant's reply to it, as a template writes both; undefined: there is none. */
  answered(messages: readonly ChatMessage[], reply: ChatMessage, tools?: readonly Tool[]): string | undefined;
  /** What would not be in the prompt of tools, calls and tools' turns, in words; undefined: nothing. */
  leavesOut(messages: readonly ChatMessage[], tools: readonly Tool[]): string | undefined;
  /** Throws ERR_RLSD_PROMPT where that is anything. */
  checkTools(messages: readonly ChatMessage[], tools: readonly Tool[]): void;
}

/** Ids of a text behind the token that begins one for this tokenizer, if any does. What it would put at the end is left out. */
function begun(encoder: Encoder, text: string): { readonly text: string; readonly ids: Int32Array } {
  const ids = encoder.encode(text);
  const whole = encoder.encode(text, { addSpecialTokens: true });
  // Nothing to begin; or nothing is put before it, also where it has begun itself.
  if (ids.length === 0 || ids[0] === whole[0]) return { text, ids };
  for (let first = 1; first + ids.length <= whole.length; first++) {
    if (!ids.every((id, i) => whole[first + i] === id)) continue;
    return { text: encoder.decode(whole.subarray(0, first)) + text, ids: whole.slice(0, first + ids.length) };
  }
  return { text, ids };
}

/**
 * `template` undefined: a base model, which reads the contents one after the other with nothing between, behind its begin
 * token. A template writes the special tokens itself, so encoding adds none.
 */
export function createPrompter(
  encoder: Encoder,
  template: ChatTemplate | undefined,
  variables: Readonly<Record<string, unknown>> = {},
): Prompter {
  const prompt = (messages: readonly ChatMessage[], tools: readonly Tool[] = []) => {
    const plain = (text: string) => ({ text, ids: encoder.encode(text) });
    const { text, ids } =
      template === undefined
        ? begun(encoder, messages.map((message) => message.content).join(""))
        : plain(template.render(messages, { addGenerationPrompt: true, variables, tools }));
    if (ids.length === 0) {
      throw new RlsdError("ERR_RLSD_PROMPT", "the prompt has no tokens: the tokenizer knows none of its characters");
    }
    return { text, ids };
  };
  const leavesOut = (messages: readonly ChatMessage[], tools: readonly Tool[]): string | undefined => {
    if (template !== undefined) {
      const missing = leftOut(template, messages, tools, variables);
      return missing && `the model's chat template leaves out ${missing}`;
    }
    const none = tools.length === 0 && messages.every((message) => message.tool_calls === undefined);
    return none ? undefined : "the model has no chat template, without which tools and their calls are not told";
  };
  return {
    chat: template !== undefined,
    prompt,
    ids: (messages, tools) => prompt(messages, tools).ids,
    answered: (messages, reply, tools = []) =>
      template?.render([...messages, reply], { addGenerationPrompt: false, variables, tools }),
    leavesOut,
    checkTools(messages, tools) {
      const missing = leavesOut(messages, tools);
      if (missing === undefined) return;
      const mend =
        'write what it should say into the contents of the messages, leave the row out, or, where tools are no part of the task, set data.fields.tools to ""';
      throw new RlsdError("ERR_RLSD_PROMPT", template === undefined ? missing : `${missing}: ${mend}`);
    },
    encode: (s) => encoder.encode(s),
    decode: (ids) => encoder.decode(ids),
  };
}
