import { fileURLToPath } from "node:url";
import type { TrainConfig } from "../config.js";
import { COMPLETION_TOKENS, PRIVILEGED_TEMPLATE } from "./clock-model.js";

const asset = (name: string) => fileURLToPath(new URL(`../../../assets/clock/${name}`, import.meta.url));

/** What `rlsd train` runs when it is given nothing. */
export function exampleSettings(): TrainConfig {
  return {
    model: asset(""),
    data: { train: [asset("train.jsonl")], eval: [asset("eval.jsonl")] },
    steps: 60,
    rollout: { prompts: 8, count: 8, maxTokens: COMPLETION_TOKENS + 4 },
    reward: "numeric",
    privileged: { source: "trace", template: PRIVILEGED_TEMPLATE },
    objective: { creditMix: 1, evidenceClip: 0.5 },
    optimizer: { learningRate: 2e-4, warmup: 10 },
    eval: { every: 10 },
    leak: { patterns: ["reference"] },
  };
}

/**
 * What `changes` change where no settings file is named: the example. Where model and rows are both other ones nothing of it
 * is meant: its held-out rows, lengths and learning rate belong to its own task.
 */
export const settingsWithoutFile = (changes: Readonly<Record<string, unknown>>): TrainConfig =>
  "model" in changes && Object.hasOwn(Object(changes.data), "train") ? {} : exampleSettings();
