import { imitates } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import { judge } from "./judge.js";
import type { Materials } from "./prepare.js";
import { reasonMetrics } from "./reasons.js";
import { rightBy } from "./success.js";

/** Traces that are judged before a run: enough to see, and few where a judge costs money. */
const MOST_TRACES = 16;

/** What the verifier says of the data's own right solutions, as if the model had answered so. */
export interface TraceCheck {
  readonly traces: number;
  readonly right: number;
  readonly unjudged: number;
  /** `reason/...` and `unjudged/...`, as metrics have them. */
  readonly reasons: Readonly<Record<string, number>>;
}

/** null: no row has a trace, none is to be judged alone, or no reward is learned from. */
export async function checkTraces(
  config: ResolvedConfig,
  { train, verifier, talk }: Pick<Materials, "train" | "verifier" | "talk">,
): Promise<TraceCheck | null> {
  const traced = train.filter(({ example }) => example.trace !== null).slice(0, MOST_TRACES);
  if (traced.length === 0 || talk !== undefined || imitates(config)) return null;
  const rollouts = traced.map((prompt, group) => ({
    id: `${prompt.example.id}#0`,
    group,
    prompt,
    tokenIds: new Int32Array(0),
    logProbs: new Float32Array(0),
    finish: "stop" as const,
    text: prompt.example.trace!,
  }));
  const { signal } = new AbortController();
  const verdicts = await judge(verifier, rollouts, config, { signal, occasion: { step: 0, name: "traces" } });
  return {
    traces: verdicts.length,
    right: verdicts.filter(rightBy(config)).length,
    unjudged: verdicts.filter(({ reward }) => reward === null).length,
    reasons: reasonMetrics(verdicts),
  };
}
