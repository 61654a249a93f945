import type { Policy, SamplingOptions } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { ResolvedConfig } from "./config.js";
import type { Example } from "./data/dataset.js";

/** An example with its prompt as this model reads it. */
export interface Prompted {
  readonly example: Example;
  readonly text: string;
  readonly ids: Int32Array;
}

/** One completion. Rollouts with the same `group` answer the same prompt. */
export interface Rollout {
  readonly id: string;
  readonly group: number;
  readonly prompt: Prompted;
  readonly tokenIds: Int32Array;
  /** When drawn, at the rollout's temperature. */
  readonly logProbs: Float32Array;
  readonly finish: "stop" | "length";
  /** Special tokens left out. */
  readonly text: string;
}

/** Prompts of one call where there are many: enough to keep the cores busy, few enough to keep the key-value cache small. */
export const PROMPTS_A_CALL = 128;

export interface RolloutOptions {
  readonly sampling: Pick<ResolvedConfig["rollout"], "topK" | "topP" | "minP" | "maxTokens" | "stopStrings">;
  readonly count: number;
  readonly temperature: number;
  readonly seed: number;
  /** Number of the first group. */
  readonly firstGroup: number;
  readonly signal?: AbortSignal | undefined;
  readonly onToken?: SamplingOptions["onToken"];
}

/** `count` completions of each prompt. */
export async function rollout(
  policy: Policy,
  tokenizer: Tokenizer,
  prompts: readonly Prompted[],
  o: RolloutOptions,
): Promise<Rollout[]> {
  const { topK, topP, minP, maxTokens, stopStrings } = o.sampling;
  const drawn = await policy.generate(
    prompts.map((prompt) => prompt.ids),
    {
      temperature: o.temperature,
      ...(topK > 0 && { topK }),
      ...(topP < 1 && { topP }),
      ...(minP > 0 && { minP }),
      ...(stopStrings.length > 0 && { stopStrings }),
      maxTokens,
      seed: o.seed,
      count: o.count,
      ...(o.signal && { signal: o.signal }),
      ...(o.onToken && { onToken: o.onToken }),
    },
  );
  return drawn.flatMap((completions, i) =>
    completions.map(({ tokenIds, logProbs, finish }, j) => ({
      id: `${prompts[i]!.example.id}#${j}`,
      group: o.firstGroup + i,
      prompt: prompts[i]!,
      tokenIds,
      logProbs,
      finish,
      text: tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
    })),
  );
}
