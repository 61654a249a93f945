import type { ChatMessage, Tool } from "./messages.js";
import type { Prompter } from "./prompter.js";
import { createSettingTemplate } from "./setting-template.js";

/** What the Jinja template of the privileged block may name. */
interface PrivilegedVariables {
  /** The student's last user message. */
  readonly content: string;
  readonly privileged: string;
  readonly answer: string | null;
  readonly row: Readonly<Record<string, unknown>>;
  readonly messages: readonly ChatMessage[];
}

export interface PrivilegedBlock {
  /** The last user message as the teacher reads it. */
  render(variables: PrivilegedVariables): string;
}

/** A block from Jinja source; ERR_RLSD_CONFIG when it is not Jinja or never shows the privileged text. */
export function createPrivilegedBlock(source: string): PrivilegedBlock {
  const template = createSettingTemplate("privileged.template", source);
  const render = (variables: PrivilegedVariables): string => template.render({ ...variables });
  const probe = { content: "\u0001question", answer: "\u0003", row: {}, messages: [] };
  const [shown, without] = ["\u0002privileged", ""].map((privileged) => render({ ...probe, privileged }));
  if (shown === without)
    template.fail("it never uses {{ privileged }}, so the teacher would know no more than the student.");
  if (!shown!.includes(probe.content))
    template.fail("it never uses {{ content }}, so the teacher would not see the question.");
  return { render };
}

interface PrivilegedRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly Tool[] | undefined;
  readonly privileged: string;
  readonly answer: string | null;
  readonly row: Readonly<Record<string, unknown>>;
}

export interface PrivilegedPrompt {
  readonly ids: Int32Array;
  /** What was left of the privileged text. */
  readonly privileged: string;
  readonly truncated: boolean;
}

/** The student's own messages; only the last user message changes. */
function withBlock(request: PrivilegedRequest, privileged: string, block: PrivilegedBlock): ChatMessage[] {
  const { messages, answer, row } = request;
  const last = messages.findLastIndex((message) => message.role === "user");
  const at = last < 0 ? messages.length - 1 : last;
  return messages.map((message, i) =>
    i === at
      ? { ...message, content: block.render({ content: message.content, privileged, answer, row, messages }) }
      : message,
  );
}

/**
 * The teacher's prompt. When it is longer than `budget` tokens, or the privileged text than `maxTokens`, the end of the
 * privileged text is cut, and nothing else ever is. undefined: there is no room for any of it.
 */
export function privilegedPrompt(
  request: PrivilegedRequest,
  block: PrivilegedBlock,
  prompter: Prompter,
  limits: { readonly budget: number; readonly maxTokens: number },
): PrivilegedPrompt | undefined {
  const all = prompter.encode(request.privileged);
  let kept = Math.min(all.length, limits.maxTokens);
  while (kept > 0) {
    const truncated = kept < all.length;
    const privileged = truncated ? prompter.decode(all.subarray(0, kept)) : request.privileged;
    const ids = prompter.ids(withBlock(request, privileged, block), request.tools);
    if (ids.length <= limits.budget) return { ids, privileged, truncated };
    // Tokens may merge differently at the cut, so what is over is taken off and the whole is measured again.
    kept -= Math.max(1, ids.length - limits.budget);
  }
  return undefined;
}
