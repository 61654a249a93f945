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
  /** Tokens that were drawn in it, as far as was told: ten times a second at most. Absent: none yet. */
  readonly tokens?: number;
}

export type OnStage = (stage: Stage) => void;

/** Milliseconds between two words about tokens. */
const TELLING_MS = 100;

/** Counts a call's tokens as they are drawn, and tells of them now and then. */
export function countTokens(tell: ((tokens: number) => void) | undefined): (() => void) | undefined {
  if (tell === undefined) return undefined;
  let tokens = 0;
  let toldAt = performance.now();
  return () => {
    tokens++;
    const now = performance.now();
    if (now - toldAt < TELLING_MS) return;
    toldAt = now;
    tell(tokens);
  };
}
