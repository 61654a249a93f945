import { resolveConfig, type TrainConfig } from "../../lib/trainer/config.js";
import type { Example } from "../../lib/trainer/data/dataset.js";
import type { Rollout } from "../../lib/trainer/rollout.js";

/** The settings of a run that only these say something of. */
export const configOf = (settings: TrainConfig = {}) =>
  resolveConfig({ model: "m", data: { train: ["d"] }, ...settings });

/** A completion of one token a character. */
export function rolloutOf(text: string, o: Partial<Rollout> = {}): Rollout {
  const example: Example = {
    id: "e",
    where: "f:1",
    messages: [{ role: "user", content: "q" }],
    answer: "42",
    trace: "a trace",
    document: null,
    tools: [],
    reply: null,
    row: {},
  };
  return {
    id: "e#0",
    group: 0,
    prompt: { example, text: "q", ids: Int32Array.of(1, 2) },
    tokenIds: Int32Array.from(text, (c) => c.charCodeAt(0)),
    logProbs: new Float32Array(text.length),
    finish: "stop",
    text,
    ...o,
  };
}
