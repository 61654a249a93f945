import { RlsdError } from "../errors.js";
import type { Completion, Policy, SamplingOptions, ScoreRequest } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { ChatMessage } from "../prompt/messages.js";
import { spanMask } from "../prompt/spans.js";
import type { Imitation } from "../prompt/turns.js";
import type { ResolvedConfig } from "./config.js";
import type { Conversation } from "./conversation.js";
import type { Example } from "./data/dataset.js";

/** An example with its prompt as this model reads it. */
export interface Prompted {
  readonly example: Example;
  readonly text: string;
  readonly ids: Int32Array;
  /** What the row itself answers, in one sequence or several; only where that is learned, or compared with. */
  readonly imitations?: readonly Imitation[] | undefined;
}

/** One completion. Rollouts with the same `group` answer the same prompt. */
export interface Rollout {
  /** Of the row, and "#" with the number of the completion. */
  readonly id: string;
  /** Completions with the same number answer the same prompt. */
  readonly group: number;
  readonly prompt: Prompted;
  /** An end token is the last of them. */
  readonly tokenIds: Int32Array;
  /** When drawn, at the rollout's temperature. */
  readonly logProbs: Float32Array;
  readonly finish: "stop" | "length";
  /** Special tokens left out. Of a conversation, the model's last turn. */
  readonly text: string;
  /** The same with special tokens, but for the one that ended it. Absent: it was not drawn now. */
  readonly raw?: string | undefined;
  /** Where the model talked to an environment. Tokens are then those of all turns and of what was read between them. */
  readonly conversation?: Conversation | undefined;
}

/** A completion that was drawn just now. */
export type DrawnRollout = Rollout & { readonly raw: string };

/** What was drawn as text, `ends` the tokens that end a completion. */
function textsOf(
  tokenizer: Tokenizer,
  tokenIds: Int32Array,
  ends: readonly number[] = [],
): Pick<DrawnRollout, "text" | "raw"> {
  const whole = ends.includes(tokenIds.at(-1)!) ? tokenIds.subarray(0, -1) : tokenIds;
  return { text: tokenizer.decode(tokenIds, { skipSpecialTokens: true }), raw: tokenizer.decode(whole) };
}

/** Where its credit is given: 1 where the model drew it, inside the tags of the settings; undefined: everywhere. */
export function spanOf(
  one: Rollout,
  tokenizer: Tokenizer,
  { span }: Pick<ResolvedConfig, "span">,
): Uint8Array | undefined {
  const drawn = one.conversation?.mask;
  if (span.open === "") return drawn;
  const inside = spanMask(tokenizer.pieces(one.tokenIds), span, one.prompt.text);
  return drawn === undefined ? inside : inside.map((n, t) => n & drawn[t]!);
}

/** As a policy reads it, to score it or to learn from it. */
export const sequenceOf = ({ prompt, tokenIds }: Pick<Rollout, "prompt" | "tokenIds">): ScoreRequest => ({
  prompt: prompt.ids,
  completion: tokenIds,
});

/** Prompts of one call where there are many: enough to keep the cores busy, few enough to keep the key-value cache small. */
export const PROMPTS_A_CALL = 128;

export interface RolloutOptions {
  readonly sampling: Pick<ResolvedConfig["rollout"], "topK" | "topP" | "minP" | "maxTokens" | "stopStrings">;
  /** One a prompt, in the place of that of `sampling`. */
  readonly maxTokens?: readonly number[] | undefined;
  readonly count: number;
  readonly temperature: number;
  readonly seed: number;
  /** One a prompt, in its place. */
  readonly seeds?: readonly number[] | undefined;
  /** Number of the first group. */
  readonly firstGroup: number;
  readonly signal?: AbortSignal | undefined;
  readonly onToken?: SamplingOptions["onToken"];
  /** Called with what a conversation's environment said and the conversation's place in the result, before the model reads it. */
  readonly onReply?: ((index: number, replies: readonly ChatMessage[]) => void) | undefined;
  /** Called with each rollout and its place in the result once it is whole, while others are still drawn; by a policy that can. */
  readonly onRollout?: ((index: number, rollout: Rollout) => void) | undefined;
}

/** The engine names the row of its batch; who trains has to know what to do. */
function explained(error: unknown): unknown {
  if (!(error instanceof RlsdError) || error.code !== "ERR_RLSD_NON_FINITE") return error;
  const message =
    `The model gives a prompt no finite log-probs (${error.message}) Its weights are not finite, or overflow: where that is so ` +
    "before the first update, its files are damaged; later the updates were too large, so go on from an earlier checkpoint " +
    'with a smaller "optimizer.learningRate".';
  return new RlsdError(error.code, message, { cause: error });
}

/** `count` completions of each prompt. */
export async function rollout(
  policy: Policy,
  tokenizer: Tokenizer,
  prompts: readonly Prompted[],
  o: RolloutOptions,
): Promise<DrawnRollout[]> {
  const { topK, topP, minP, maxTokens, stopStrings } = o.sampling;
  const sampling = {
    temperature: o.temperature,
    ...(topK > 0 && { topK }),
    ...(topP < 1 && { topP }),
    ...(minP > 0 && { minP }),
    ...(stopStrings.length > 0 && { stopStrings }),
    maxTokens: o.maxTokens ?? maxTokens,
    seed: o.seeds ?? o.seed,
    count: o.count,
    ...(o.signal && { signal: o.signal }),
    ...(o.onToken && { onToken: o.onToken }),
    ...(o.onRollout && { onCompletion: (i: number, j: number, one: Completion) => tell(i, j, one) }),
  };
  const made = (i: number, j: number, { tokenIds, logProbs, finish }: Completion): DrawnRollout => ({
    id: `${prompts[i]!.example.id}#${j}`,
    group: o.firstGroup + i,
    prompt: prompts[i]!,
    tokenIds,
    logProbs,
    finish,
    ...textsOf(tokenizer, tokenIds, policy.endTokenIds),
  });
  const tell = (i: number, j: number, one: Completion) => o.onRollout?.(i * o.count + j, made(i, j, one));
  const ids = prompts.map((prompt) => prompt.ids);
  const drawn = await policy.generate(ids, sampling).catch((error: unknown) => {
    throw explained(error);
  });
  return drawn.flatMap((completions, i) => completions.map((one, j) => made(i, j, one)));
}
