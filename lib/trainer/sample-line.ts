import type { Tokenizer } from "../policy/tokenizer.js";
import type { Judged } from "./judge.js";
import type { Rollout } from "./rollout.js";
import { rounded, type SampleLine } from "./run-folder.js";

/** All that is known of a completion once its credit is. Per-token arrays have one entry a token. */
export interface Credited {
  readonly step: number;
  readonly rollout: Rollout;
  readonly verdict: Judged;
  readonly advantage: number;
  /** What the teacher saw besides; undefined: it was not asked. */
  readonly privileged?: string | undefined;
  readonly teacherLogProbs?: Float32Array | undefined;
  readonly evidenceWeights?: Float32Array | undefined;
  /** Absent: the completion was left out of the loss. */
  readonly tokenAdvantages?: Float32Array | undefined;
}

/** A completion as samples.jsonl has it. */
export function sampleLine(told: Credited, tokenizer: Tokenizer): SampleLine {
  const { step, rollout, verdict, advantage, privileged = null } = told;
  return {
    step,
    id: rollout.id,
    group: rollout.group,
    prompt: rollout.prompt.text,
    privileged,
    completion: rollout.text,
    finish: rollout.finish,
    tokenIds: [...rollout.tokenIds],
    tokenText: tokenizer.pieces(rollout.tokenIds),
    logProbs: rounded(rollout.logProbs),
    teacherLogProbs: rounded(told.teacherLogProbs ?? []),
    evidenceWeights: rounded(told.evidenceWeights ?? []),
    tokenAdvantages: rounded(told.tokenAdvantages ?? new Float32Array(rollout.tokenIds.length)),
    reward: verdict.reward,
    advantage,
    detail: { ...verdict.detail, ...(verdict.reason !== undefined && { reason: verdict.reason }) },
  };
}
