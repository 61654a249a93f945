import type { Tokenizer } from "../policy/tokenizer.js";
import type { Evidence } from "./evidence.js";
import type { Judged } from "./judge.js";
import type { Rollout } from "./rollout.js";
import { rounded, type SampleLine } from "./run-folder.js";

/** All that is known of a completion once its credit is. Per-token arrays have one entry a token. */
interface Credited {
  readonly step: number;
  /** It answers a held-out row. */
  readonly heldOut?: true | undefined;
  readonly rollout: Rollout;
  readonly verdict: Judged;
  readonly advantage: number;
  /** What the teacher saw besides; undefined: it was not asked. */
  readonly privileged?: string | undefined;
  /** What it said of the drawn tokens. */
  readonly evidence?: Evidence | undefined;
  readonly evidenceWeights?: Float32Array | undefined;
  /** Absent: the completion was left out of the loss. */
  readonly tokenAdvantages?: Float32Array | undefined;
  /** Of the student's distributions from the teacher's, where these were compared. */
  readonly divergences?: Float32Array | undefined;
}

/** Weights as the credit takes them: 1 where none is given, outside the span and where `negativeOnly` spares A >= 0. */
export function creditedWeights(
  weights: Float32Array,
  o: { readonly span: Uint8Array | undefined; readonly advantage: number; readonly negativeOnly: boolean },
): Float32Array {
  const spared = o.negativeOnly && o.advantage >= 0;
  return weights.map((weight, t) => (spared || o.span?.[t] === 0 ? 1 : weight));
}

/** A completion as samples.jsonl has it. */
export function sampleLine(told: Credited, tokenizer: Tokenizer): SampleLine {
  const { step, heldOut, rollout, verdict, advantage, evidence } = told;
  const contrast = evidence?.contrastLogProbs;
  const talked = rollout.conversation;
  return {
    step,
    ...(heldOut && { heldOut }),
    id: rollout.id,
    group: rollout.group,
    prompt: rollout.prompt.text,
    privileged: told.privileged ?? null,
    completion: rollout.text,
    ...(talked && { messages: talked.messages, mask: [...talked.mask] }),
    finish: rollout.finish,
    tokenIds: [...rollout.tokenIds],
    tokenText: tokenizer.pieces(rollout.tokenIds),
    logProbs: rounded(rollout.logProbs),
    teacherLogProbs: rounded(evidence?.teacherLogProbs ?? []),
    ...(contrast && { contrastLogProbs: rounded(contrast) }),
    evidenceWeights: rounded(told.evidenceWeights ?? []),
    tokenAdvantages: rounded(told.tokenAdvantages ?? new Float32Array(rollout.tokenIds.length)),
    ...(told.divergences && { divergences: rounded(told.divergences) }),
    reward: verdict.reward,
    advantage,
    detail: { ...talked?.detail, ...verdict.detail, ...(verdict.reason !== undefined && { reason: verdict.reason }) },
  };
}
