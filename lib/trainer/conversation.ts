import type { CheckedReply, Environment, EnvironmentFault } from "../environments/environment.js";
import { withTexts } from "../exact-json.js";
import { onAbort } from "../on-abort.js";
import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import { continuation } from "../prompt/continuation.js";
import { type ChatMessage, turnText } from "../prompt/messages.js";
import type { Prompter } from "../prompt/prompter.js";
import { Answers } from "./answers.js";
import { hashSeed } from "./random.js";
import { type DrawnRollout, type Prompted, type Rollout, type RolloutOptions, rollout } from "./rollout.js";

/** What a completion is where the model talks to an environment: its turns, and what it read between them. */
export interface Conversation {
  /** What followed the prompt; the assistant's last turn is in it. */
  readonly messages: readonly ChatMessage[];
  /** Of the assistant. */
  readonly turns: number;
  /** By token: 1 where the model drew it, 0 where it read it. */
  readonly mask: Uint8Array;
  /** What the model had read before its last turn. */
  readonly prompt: string;
  /** The sum of what the environment gave. */
  readonly reward: number;
  readonly detail: Readonly<Record<string, unknown>>;
  /** Why the environment could not answer; absent: it could. */
  readonly fault?: EnvironmentFault | undefined;
}

/** All that the model said in a completion. */
export const allSaid = ({
  text,
  messages,
}: {
  readonly text: string;
  readonly messages?: readonly ChatMessage[] | undefined;
}): string => messages?.flatMap(({ role, content }) => (role === "assistant" ? [content] : [])).join("\n") ?? text;

/** A completion as one text: of a conversation, every turn with who said it. */
export const transcript = ({ text, conversation }: Pick<Rollout, "text" | "conversation">): string =>
  conversation?.messages
    .map((message) => (message.role === "assistant" ? turnText(message) : `${message.role}: ${message.content}`))
    .join("\n") ?? text;

/** Turns of the model in a conversation; undefined: there was none. */
export const turnsIn = (messages: readonly ChatMessage[] | undefined): number | undefined =>
  messages?.filter(({ role }) => role === "assistant").length;

/** Who the model talks to, and how. */
export interface Talk {
  readonly environment: Environment;
  readonly prompter: Prompter;
  /** Turns of the assistant at most. */
  readonly turns: number;
  /** The caller has the policy keep what it draws, beyond these conversations. */
  readonly keptByCaller?: boolean | undefined;
}

/** A conversation that goes on, or has ended. */
interface Open {
  /** Its place among all. */
  readonly at: number;
  readonly first: Rollout;
  readonly tokenIds: number[];
  readonly logProbs: number[];
  readonly mask: number[];
  readonly messages: ChatMessage[];
  turns: number;
  /** Tokens before the last turn. */
  read: number;
  /** What was drawn in the last turn. */
  last: Pick<DrawnRollout, "text" | "raw">;
  state: unknown;
  reward: number;
  detail: Readonly<Record<string, unknown>>;
  fault: EnvironmentFault | undefined;
  finish: Rollout["finish"];
}

const begun = (first: DrawnRollout, at: number): Open => ({
  at,
  first,
  tokenIds: [],
  logProbs: [],
  mask: [],
  messages: [],
  turns: 0,
  read: 0,
  last: first,
  state: undefined,
  reward: 0,
  detail: {},
  fault: undefined,
  finish: first.finish,
});

type Drawn = Pick<DrawnRollout, "tokenIds" | "logProbs" | "finish" | "text" | "raw">;

function push(values: number[], more: Iterable<number>): void {
  // One by one: there may be more than a call has arguments.
  for (const value of more) values.push(value);
}

class Conversations {
  private readonly ends: ReadonlyMap<number, string>;

  constructor(
    policy: Pick<Policy, "endTokenIds">,
    private readonly tokenizer: Tokenizer,
    private readonly talk: Talk,
    private readonly o: RolloutOptions,
    private readonly signal: AbortSignal,
  ) {
    const ids = policy.endTokenIds ?? [];
    this.ends = new Map(ids.map((id) => [id, tokenizer.decode([id])]));
  }

  /** The model has spoken. */
  take(one: Open, { tokenIds, logProbs, finish, text, raw }: Drawn): void {
    one.read = one.tokenIds.length;
    push(one.tokenIds, tokenIds);
    push(one.logProbs, logProbs);
    push(one.mask, new Uint8Array(tokenIds.length).fill(1));
    one.finish = finish;
    one.turns++;
    one.last = { text, raw };
    one.messages.push({ role: "assistant", content: text });
  }

  private endedByToken = ({ tokenIds }: Open): boolean => this.ends.has(tokenIds.at(-1)!);

  /** What the environment says to the last turn; false: the conversation is over, and whoever waits for it was told. */
  async answer(one: Open): Promise<boolean> {
    const goesOn = await this.ask(one);
    if (!goesOn) this.o.onRollout?.(one.at, this.whole(one));
    return goesOn;
  }

  private async ask(one: Open): Promise<boolean> {
    // A turn that was cut off is not whole, and nobody answers it.
    if (one.finish === "length") return false;
    const { environment, turns } = this.talk;
    const { example } = one.first.prompt;
    const reply = await environment.respond(
      {
        id: one.first.id,
        turn: one.turns,
        messages: [...withTexts(example.messages), ...one.messages],
        completion: one.messages.at(-1)!.content,
        raw: one.last.raw,
        row: example.row,
        state: one.state,
      },
      this.signal,
    );
    if ("fault" in reply) {
      one.fault = reply.fault;
      return false;
    }
    one.state = reply.state;
    one.reward += reply.reward;
    one.detail = { ...one.detail, ...reply.detail };
    if (reply.messages.length === 0) return false;
    return one.turns < turns ? this.read(one, reply) : this.cut(one);
  }

  /** There would be more to say than there is room for. */
  private cut(one: Open): false {
    one.finish = "length";
    return false;
  }

  private read(one: Open, { messages: replies, turn = one.messages.at(-1)! }: CheckedReply): boolean {
    const { example } = one.first.prompt;
    const { prompter } = this.talk;
    const before = [...example.messages, ...one.messages.slice(0, -1)];
    const exchange = { before, turn, replies, tools: example.tools };
    const ids = prompter.encode(continuation(prompter, exchange, [...this.ends.values()], this.endedByToken(one)));
    if (one.tokenIds.length + ids.length >= this.o.sampling.maxTokens) return this.cut(one);
    one.messages[one.messages.length - 1] = turn;
    one.messages.push(...replies);
    this.o.onReply?.(one.at, replies);
    push(one.tokenIds, ids);
    push(one.logProbs, new Float32Array(ids.length));
    push(one.mask, new Uint8Array(ids.length));
    return true;
  }

  whole(one: Open): Rollout {
    const { first, turns, reward, detail, fault, finish, messages } = one;
    const tokenIds = Int32Array.from(one.tokenIds);
    return {
      ...first,
      tokenIds,
      logProbs: Float32Array.from(one.logProbs),
      finish,
      ...one.last,
      conversation: {
        messages,
        turns,
        mask: Uint8Array.from(one.mask),
        prompt: first.prompt.text + this.tokenizer.decode(tokenIds.subarray(0, one.read)),
        reward,
        detail,
        ...(fault && { fault }),
      },
    };
  }
}

function joined(prompt: Int32Array, more: readonly number[]): Int32Array {
  const ids = new Int32Array(prompt.length + more.length);
  ids.set(prompt);
  ids.set(more, prompt.length);
  return ids;
}

/** Completions of each prompt; where the model talks to somebody, whole conversations. */
export const complete = (
  policy: Policy,
  tokenizer: Tokenizer,
  prompts: readonly Prompted[],
  o: RolloutOptions,
  talk: Talk | undefined,
): Promise<Rollout[]> =>
  talk === undefined ? rollout(policy, tokenizer, prompts, o) : converse(policy, tokenizer, prompts, o, talk);

/**
 * `count` conversations from each prompt: the model speaks, the environment answers, until one of them has no more to say or there
 * is no more room. Turns are drawn together where their answers are there together, and keys and values stay in the cache between
 * them; a conversation whose answer takes long holds up no other.
 */
async function converse(
  policy: Policy,
  tokenizer: Tokenizer,
  prompts: readonly Prompted[],
  o: RolloutOptions,
  talk: Talk,
): Promise<Rollout[]> {
  const over = new AbortController();
  const forget = o.signal && onAbort(o.signal, () => over.abort(o.signal!.reason));
  const all = new Conversations(policy, tokenizer, talk, o, over.signal);
  // All that was drawn may be gone on from; what is kept is bounded by the completions themselves.
  if (!talk.keptByCaller) await policy.keepPrefixes?.(Number.MAX_SAFE_INTEGER);
  try {
    let began = performance.now();
    const first = await rollout(policy, tokenizer, prompts, { ...o, onRollout: undefined });
    const open = first.map(begun);
    for (const [i, one] of open.entries()) all.take(one, first[i]!);
    const answers = new Answers<Open>();
    for (let spoken = open; ; ) {
      for (const one of spoken) answers.wait(one, all.answer(one));
      spoken = await answers.next(performance.now() - began);
      if (spoken.length === 0) return open.map((one) => all.whole(one));
      began = performance.now();
      await speak(policy, tokenizer, spoken, all, o);
    }
  } finally {
    forget?.();
    over.abort();
    if (!talk.keptByCaller) await policy.keepPrefixes?.(0);
  }
}

/** The next turn of each. */
async function speak(
  policy: Policy,
  tokenizer: Tokenizer,
  speaking: Open[],
  all: Conversations,
  o: RolloutOptions,
): Promise<void> {
  // Those of one prompt side by side.
  speaking.sort((a, b) => a.at - b.at);
  const tell = (at: number, id: number, logProb: number) =>
    o.onToken?.(Math.floor(at / o.count), at % o.count, id, logProb);
  const asked = speaking.map(({ first, tokenIds }) => ({ ...first.prompt, ids: joined(first.prompt.ids, tokenIds) }));
  const drawn = await rollout(policy, tokenizer, asked, {
    ...o,
    maxTokens: speaking.map(({ tokenIds }) => o.sampling.maxTokens - tokenIds.length),
    count: 1,
    // Of the turn alone: which others are drawn with it depends on the time that answers take.
    seeds: speaking.map(({ at, turns }) => hashSeed(o.seed, "turn", turns, at)),
    onRollout: undefined,
    onToken: o.onToken && ((i, _, id, logProb) => tell(speaking[i]!.at, id, logProb)),
  });
  for (const [i, one] of speaking.entries()) all.take(one, drawn[i]!);
}
