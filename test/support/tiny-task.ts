import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrainConfig } from "../../lib/trainer/config.js";
import type { Sample } from "../../lib/verifiers/verifier.js";
import { writeTinyModel } from "./tiny-policy.js";

/** The share of a completion's characters that are the right letter: a reward with many values. */
export function shareOfLetter({ completion, row }: Sample): number {
  const right = [...completion].filter((letter) => letter === row.answer).length;
  return completion === "" ? 0 : right / completion.length;
}

/** A new folder with a tiny model and twelve rows of "repeat this letter". */
export function tinyTask(): { folder: string; settings: TrainConfig & { output: string } } {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-train-"));
  writeTinyModel(join(folder, "model"));
  const rows = [..."abcdefghijkl"].map((letter) => ({
    question: `say ${letter}`,
    answer: letter,
    trace: `${letter}${letter}`,
  }));
  writeFileSync(join(folder, "train.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
  writeFileSync(
    join(folder, "eval.jsonl"),
    rows
      .slice(0, 6)
      .map((row) => JSON.stringify(row))
      .join("\n"),
  );
  return {
    folder,
    settings: {
      model: join(folder, "model"),
      output: join(folder, "run"),
      seed: 3,
      steps: 6,
      data: { train: [join(folder, "train.jsonl")], eval: [join(folder, "eval.jsonl")] },
      rollout: { prompts: 3, count: 8, maxTokens: 6 },
      reward: shareOfLetter,
      privileged: { template: "{{ content }}. {{ privileged }}" },
      objective: { creditMix: 1 },
      optimizer: { learningRate: 0.05, warmup: 2 },
      eval: { every: 2 },
      checkpoint: { every: 2, keep: 2 },
      log: { samples: 100 },
    },
  };
}
