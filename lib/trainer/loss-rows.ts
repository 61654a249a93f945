import type { Objective } from "../objectives/objective.js";
import type { PrivilegedPrompt } from "../prompt/privileged.js";
import type { ResolvedConfig } from "./config.js";
import type { Evidence } from "./evidence.js";
import type { Rollout } from "./rollout.js";

/** One completion as the loss sees it. */
export interface LossRow {
  readonly rollout: Rollout;
  readonly advantage: number;
  /** One a token, in the place of `advantage`. */
  readonly tokenAdvantages?: Float32Array | undefined;
  readonly evidence: Evidence | undefined;
  /** What the teacher reads before this completion, where the loss compares the two at every token. */
  readonly lesson?: PrivilegedPrompt | undefined;
  /** Credit and lessons only where 1; undefined: everywhere. */
  readonly span: Uint8Array | undefined;
  /** Tokens in the loss, where 1; absent: all. */
  readonly mask?: Uint8Array | undefined;
  /** Of the policy that drew it, by the kernel that trains; absent: the policy has not changed since. */
  readonly oldLogProbs?: Float32Array;
  readonly refLogProbs?: Float32Array;
}

type Mask = Uint8Array | undefined;

const marked = ({ rollout }: LossRow, mask: Mask): number =>
  mask === undefined ? rollout.tokenIds.length : mask.reduce((n, kept) => n + kept, 0);

/** Tokens of a row that are in the loss. */
export const lossTokens = (row: LossRow): number => marked(row, row.mask);

/** Tokens of a row inside the span: those that credit and lessons reach. */
export const spanTokens = (row: LossRow): number => marked(row, row.span);

/** The rows' masks one behind the other; a row without one is 1 everywhere. */
export function packMasks(rows: readonly LossRow[], maskOf: (row: LossRow) => Mask): Uint8Array {
  const whole = ({ rollout }: LossRow) => new Uint8Array(rollout.tokenIds.length).fill(1);
  return Uint8Array.from(rows.flatMap((row) => [...(maskOf(row) ?? whole(row))]));
}

/**
 * What the reduction divides by, counted over a whole minibatch however it is cut up; `tokensOf`: those of a row that
 * the loss sees.
 */
export function normalizerOf(
  objective: Pick<Objective, "normalizer" | "reduction">,
  rows: readonly LossRow[],
  config: ResolvedConfig,
  tokensOf = lossTokens,
): number {
  if (objective.normalizer !== null) return objective.normalizer;
  switch (objective.reduction) {
    case "token-mean":
      return rows.reduce((n, row) => n + tokensOf(row), 0);
    case "sequence-mean":
      return rows.length;
    case "sequence-sum":
      // Dr. GRPO divides by a length that no completion changes.
      return rows.length * (config.objective.preset === "drGrpo" ? config.rollout.maxTokens : 1);
    case "token-sum":
      return 1;
  }
}

/** Keys of attention for each token that is computed: the engine's bound as well (csrc/model/batch.cc). */
const KEYS_PER_TOKEN = 8;

/**
 * Cuts rows into runs of at most `budget` tokens, at least one row each. A prompt counts once for the completions of it
 * that lie side by side: they are computed together.
 */
export function microbatches(rows: readonly LossRow[], budget: number): LossRow[][] {
  const out: LossRow[][] = [];
  let [tokens, keys] = [0, 0];
  for (const row of rows) {
    const { prompt, tokenIds } = row.rollout;
    const whole = prompt.ids.length + tokenIds.length;
    const added = out.at(-1)?.at(-1)?.rollout.prompt === prompt ? tokenIds.length : whole;
    if (out.length === 0 || tokens + added > budget || keys + whole > KEYS_PER_TOKEN * budget) {
      out.push([row]);
      tokens = keys = whole;
    } else {
      out.at(-1)!.push(row);
      tokens += added;
      keys += whole;
    }
  }
  return out;
}
