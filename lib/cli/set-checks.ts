import { RlsdError } from "../errors.js";
import { valueAt } from "../trainer/data/fields.js";

/** Settings of training alone, for what asks a model that is there; a section's name stands for all of it. */
const OF_TRAINING = [
  "model",
  "output",
  "steps",
  "data.train",
  "data.shuffle",
  "rollout.prompts",
  "rollout.count",
  "groups",
  "lora",
  "distill",
  "optimizer",
  "update",
  "eval.every",
  "eval.atStart",
  "stop",
  "checkpoint",
  "log",
];

/**
 * By command: what it has no use for, and what is meant instead, if anything. Teacher and credit may be given to an evaluation as
 * they are to `rlsd credit`, so that both take the same.
 */
const UNUSED: Readonly<Record<"eval" | "credit", readonly (readonly [name: string, instead?: string])[]>> = {
  eval: [
    ["rollout.temperature", "eval.temperature"],
    ["rollout.count", "eval.samples"],
    ...OF_TRAINING.map((name) => [name] as const),
  ],
  credit: [
    ...OF_TRAINING,
    ...["seed", "algorithm", "data.eval", "rollout.topK", "rollout.topP", "rollout.minP", "rollout.turns"],
    ...["rollout.stopStrings", "sft", "eval.limit", "eval.samples", "eval.temperature", "eval.passAt", "leak"],
  ].map((name) => [name] as const),
};

/** Throws ERR_RLSD_USAGE for a `--set` that could change nothing of what the command prints or writes. */
export function refuseUnusedSets(command: keyof typeof UNUSED, given: Readonly<Record<string, unknown>>): void {
  for (const [name, instead] of UNUSED[command]) {
    if (valueAt(given, name) === undefined) continue;
    const mend = instead === undefined ? "leave it out" : `${instead} does that here`;
    throw new RlsdError("ERR_RLSD_USAGE", `--set ${name}: rlsd ${command} has no use for it: ${mend}.`);
  }
}
