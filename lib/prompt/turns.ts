import { RlsdError } from "../errors.js";
import { type Demonstration, demonstration } from "./demonstration.js";
import type { ChatMessage, Tool } from "./messages.js";
import type { Prompter } from "./prompter.js";

/** A sequence to learn from: what is read, and behind it turns of the assistant with what is read between them. */
export interface Imitation {
  readonly prompt: { readonly text: string; readonly ids: Int32Array };
  readonly ids: Int32Array;
  /** 1 where a token of `ids` is learned; undefined: everywhere. */
  readonly mask: Uint8Array | undefined;
}

/** An imitation of one reply. */
export const replyImitation = (prompt: Imitation["prompt"], { ids }: Demonstration): Imitation => ({
  prompt,
  ids,
  mask: undefined,
});

/** That imitation with another turn behind it; undefined: the turn's prompt does not begin with the imitation, id by id. */
function extended(imitation: Imitation, prompt: Imitation["prompt"], shown: Demonstration): Imitation | undefined {
  const { prompt: first } = imitation;
  const start = first.ids.length;
  const begins = prompt.ids.length >= start + imitation.ids.length;
  if (!begins || !first.ids.every((id, i) => prompt.ids[i] === id)) return undefined;
  if (!imitation.ids.every((id, i) => prompt.ids[start + i] === id)) return undefined;
  const at = prompt.ids.length - start;
  const ids = new Int32Array(at + shown.ids.length);
  ids.set(prompt.ids.subarray(start));
  ids.set(shown.ids, at);
  // What lies between the two is read alone.
  const mask = new Uint8Array(ids.length).fill(1, at);
  if (imitation.mask === undefined) mask.fill(1, 0, imitation.ids.length);
  else mask.set(imitation.mask);
  return { prompt: first, ids, mask };
}

/** What is wrong with a turn, and which one it is. */
function named<T>(i: number, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    throw new RlsdError(error.code, `message ${i + 1} (sft.turns is all): ${error.message}`, { cause: error });
  }
}

/**
 * Every turn of the assistant, as the model would have to draw it when it was its turn: each is rendered as the last one of
 * the conversation up to it. Turns are in one sequence where the template only appends. Where it writes earlier turns anew
 * (Qwen 3 and SmolLM 3 leave out their thoughts), what the model reads later is another text, and the turns after that have a
 * sequence of their own.
 *
 * @param endTokenIds that end a completion, the likeliest first
 * @throws RlsdError ERR_RLSD_PROMPT when a turn says nothing, or leaves open a thought that its prompt opens
 */
export function turnImitations(
  prompter: Prompter,
  { messages, tools }: { readonly messages: readonly ChatMessage[]; readonly tools?: readonly Tool[] | undefined },
  endTokenIds: readonly number[],
): Imitation[] {
  const imitations: Imitation[] = [];
  // What the assistant says before anyone asked is read, and no answer to learn.
  const asked = messages.findIndex(({ role }) => role !== "assistant" && role !== "system");
  for (const [i, reply] of messages.entries()) {
    if (reply.role !== "assistant" || asked < 0 || i < asked) continue;
    const before = messages.slice(0, i);
    const prompt = prompter.prompt(before, tools);
    const shown = named(i, () => demonstration(prompter, prompt, { messages: before, tools, reply }, endTokenIds));
    const last = imitations.at(-1);
    const longer = last && extended(last, prompt, shown);
    if (longer === undefined) imitations.push(replyImitation(prompt, shown));
    else imitations[imitations.length - 1] = longer;
  }
  return imitations;
}
