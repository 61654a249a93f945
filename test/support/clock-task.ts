import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrainConfig } from "../../lib/trainer/config.js";
import { exampleSettings } from "../../lib/trainer/example/config.js";

/** The first rows of the built-in example, in a file of the folder: a few steps draw no more, and each run reads all. */
export function fewRows(folder: string): string {
  const file = join(folder, "few.jsonl");
  const lines = readFileSync(exampleSettings().data!.train![0]!, "utf8").split("\n");
  writeFileSync(file, lines.slice(0, 100).join("\n"));
  return file;
}

/** The built-in example in a folder of its own, a few small steps of it on a copy of its model, with adapters. */
export function clockTask(): { folder: string; settings: TrainConfig & { model: string; output: string } } {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-clock-"));
  const example = exampleSettings();
  const model = join(folder, "model");
  cpSync(example.model!, model, { recursive: true });
  return {
    folder,
    settings: {
      ...example,
      model,
      output: join(folder, "run"),
      seed: 5,
      steps: 4,
      lora: { rank: 2, targets: ["q_proj", "down_proj"] },
      rollout: { ...example.rollout, prompts: 3, count: 4 },
      optimizer: { learningRate: 5e-3 },
      data: { train: [fewRows(folder)] },
      checkpoint: { every: 2, keep: 2 },
      log: { samples: 100 },
    },
  };
}
