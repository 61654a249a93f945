/** What is being done, where it may take a while. */
export interface Stage {
  /** The step that is being made, or after which the policy is evaluated. */
  readonly step: number;
  /** "evaluation": draws and judges held-out completions. */
  readonly doing: "rollout" | "verify" | "teacher" | "update" | "evaluation";
  /** Completions that are done, of `total`; absent where that is known only at the end. */
  readonly done?: number;
  /** Completions. */
  readonly total: number;
}

export type OnStage = (stage: Stage) => void;
