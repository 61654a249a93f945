import { cpSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrainConfig } from "../../lib/trainer/config.js";
import { exampleSettings } from "../../lib/trainer/example/config.js";

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
      data: { train: example.data!.train! },
      checkpoint: { every: 2, keep: 2 },
      log: { samples: 100 },
    },
  };
}
