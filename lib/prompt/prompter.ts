import { RlsdError } from "../errors.js";
import type { ChatMessage, ChatTemplate } from "./chat-template.js";

/** The part of a tokenizer that prompts need. */
export interface Encoder {
  encode(text: string): Int32Array;
  decode(ids: ArrayLike<number>): string;
}

/** Writes conversations as prompts of one model. */
export interface Prompter extends Encoder {
  /** Whether a template tells the turns of a conversation apart. */
  readonly chat: boolean;
  /** The prompt as text and as the ids of that text. */
  prompt(messages: readonly ChatMessage[]): { readonly text: string; readonly ids: Int32Array };
  ids(messages: readonly ChatMessage[]): Int32Array;
}

/**
 * `template` undefined: a base model, which reads the contents one after the other with nothing between.
 * The template writes the special tokens itself, so encoding adds none.
 */
export function createPrompter(
  encoder: Encoder,
  template: ChatTemplate | undefined,
  variables: Readonly<Record<string, unknown>> = {},
): Prompter {
  const prompt = (messages: readonly ChatMessage[]) => {
    const text =
      template === undefined
        ? messages.map((message) => message.content).join("")
        : template.render(messages, { addGenerationPrompt: true, variables });
    const ids = encoder.encode(text);
    if (ids.length === 0) {
      throw new RlsdError("ERR_RLSD_PROMPT", "the prompt has no tokens: the tokenizer knows none of its characters");
    }
    return { text, ids };
  };
  return {
    chat: template !== undefined,
    prompt,
    ids: (messages) => prompt(messages).ids,
    encode: (s) => encoder.encode(s),
    decode: (ids) => encoder.decode(ids),
  };
}
