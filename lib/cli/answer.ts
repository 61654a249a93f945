import type { Tokenizer } from "../policy/tokenizer.js";
import type { Conversation } from "../trainer/conversation.js";
import type { Rollout } from "../trainer/rollout.js";
import { rounded } from "../trainer/run-folder.js";
import type { Message } from "../verifiers/verifier.js";
import { readable, tell } from "./command.js";
import { oneLine } from "./one-line.js";

/** What the environment gave; where it failed, nothing that counts. */
const given = ({ reward, detail, fault }: Conversation) =>
  fault === undefined ? { reward, detail } : { reward: null, ...fault };

/** On stderr, where a conversation ended because its environment could not answer: why. `begun`: a line of the answer is open. */
export function tellFault({ id, conversation }: Rollout, begun: boolean): void {
  if (conversation?.fault === undefined) return;
  const { reason, detail } = conversation.fault;
  const why = typeof detail.message === "string" ? detail.message : JSON.stringify(detail);
  tell(`${begun ? "\n" : ""}rlsd: ${id}: the environment did not answer: ${reason}: ${oneLine(why, 200)}`);
}

/**
 * A completion as `rlsd generate --json` prints it: what was drawn, then the other columns of the row that it answers, so
 * that it can be scored and credited.
 */
export function answerLine(rollout: Rollout): Record<string, unknown> {
  const { id, prompt, text, tokenIds, logProbs, finish, conversation } = rollout;
  const { messages, given: asked = messages, tools, row } = prompt.example;
  // Of a conversation the last turn is the completion, and all before it was asked.
  const start = (conversation?.mask.lastIndexOf(0) ?? -1) + 1;
  const drawn = {
    id,
    prompt: conversation?.prompt ?? prompt.text,
    // Who reads this line has the template again.
    messages: [...asked, ...(conversation?.messages.slice(0, -1) ?? [])],
    ...(tools.length > 0 && { tools }),
    completion: text,
    tokenIds: [...tokenIds.subarray(start)],
    logProbs: rounded(logProbs.subarray(start)),
    finish,
    ...(conversation && { environment: given(conversation) }),
  };
  // A list of completions would be taken for those of this row.
  const rest = Object.entries(row).filter(([name]) => name !== "completions" && !Object.hasOwn(drawn, name));
  return { ...drawn, ...Object.fromEntries(rest) };
}

interface LiveText {
  /** What is shown by now. */
  readonly shown: string;
  token(id: number): void;
  /** What the model is answered, each message a line of its own. */
  reply(replies: readonly Message[]): void;
  /** Shows what is left of the whole text: the bytes of a character that was cut off. */
  end(text: string): void;
}

/** Shows a completion as it is drawn: whole characters, special tokens left out. */
export function createLiveText(tokenizer: Tokenizer): LiveText {
  const feed = tokenizer.stream({ skipSpecialTokens: true });
  let shown = "";
  /** Where the last turn begins. */
  let begun = 0;
  const show = (piece: string) => {
    if (piece === "") return;
    shown += piece;
    process.stdout.write(readable(piece));
  };
  return {
    get shown() {
      return shown;
    },
    token: (id) => show(feed(id)),
    reply(replies) {
      const lines = replies.map(({ role, name = role, content }) => `[${name}] ${oneLine(content, 200)}\n`);
      show(`${shown.endsWith("\n") || shown === "" ? "" : "\n"}${lines.join("")}`);
      begun = shown.length;
    },
    end(text) {
      const last = shown.slice(begun);
      show(text.startsWith(last) ? text.slice(last.length) : "");
    },
  };
}

export interface Speed {
  /** Tokens by now. */
  readonly tokens: number;
  token(): void;
  /** Runs what draws tokens; its time counts. */
  during<T>(draw: () => Promise<T>): Promise<T>;
  /** On stderr: how many tokens there were, and how fast. */
  tell(): void;
}

/** Tokens, and the time that it took to draw them, prompts included. */
export function createSpeed(now: () => number = () => performance.now()): Speed {
  let tokens = 0;
  let spent = 0;
  return {
    get tokens() {
      return tokens;
    },
    token: () => void tokens++,
    async during(draw) {
      const start = now();
      try {
        return await draw();
      } finally {
        spent += now() - start;
      }
    },
    tell() {
      if (tokens === 0) return;
      const rate = Math.round((1000 * tokens) / Math.max(spent, 1e-3));
      tell(`rlsd: ${tokens} tokens in ${(spent / 1000).toFixed(2)} s: ${rate.toLocaleString("en")} tokens/s`);
    },
  };
}
