import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Objective, ObjectiveFields } from "../../lib/objectives/objective.js";
import { bnpo, dapo, drGrpo, gmpo, grpo, gspo, luspo, sapo } from "../../lib/objectives/presets.js";

/** One batch of test/fixtures/published: what TRL's or verl's own loss function makes of it. */
export interface PublishedCase {
  /** "preset variant" */
  readonly name: string;
  readonly fields: Partial<ObjectiveFields>;
  readonly inputs: {
    readonly mask: number[];
    readonly logProbs: number[];
    readonly oldLogProbs: number[];
    readonly refLogProbs?: number[];
    readonly samplerLogProbs?: number[];
    readonly advantages: number[];
  };
  readonly loss: number;
  readonly dLogProbs: number[];
}

export interface PublishedFile {
  /** (B, T), padded */
  readonly shape: [number, number];
  readonly cases: PublishedCase[];
}

const folder = join(__dirname, "../fixtures/published");

export const loadPublished = (file: "trl.json" | "verl.json"): PublishedFile =>
  JSON.parse(readFileSync(join(folder, file), "utf8")) as PublishedFile;

/** Our factory of each published preset. */
export const presets = { grpo, bnpo, dr_grpo: drGrpo, dapo, sapo, luspo, gspo, gmpo };

/** The case's preset with the case's options; what the preset stands for (surrogate, reduction) is its own. */
export function presetOf({ name, fields }: PublishedCase): Objective {
  const { objective: _surrogate, reduction: _reduction, ...options } = fields;
  return presets[name.split(" ")[0] as keyof typeof presets](options);
}
