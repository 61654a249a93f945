import { createHash } from "node:crypto";
import { exactJson } from "../exact-json.js";
import type { Materials } from "./prepare.js";
import type { Prompted } from "./rollout.js";

/** Fingerprints of a run's rows, so that one that goes on knows when they are others. */
export interface RowPrints {
  readonly train: string;
  readonly eval: string;
}

function printOf(prompts: readonly Prompted[]): string {
  const hash = createHash("sha256");
  for (const { text, example } of prompts) hash.update(exactJson([example.id, text, example.answer, example.row]));
  return hash.digest("hex");
}

/** Of prompts as the model reads them, and of all columns of their rows. */
export const rowPrints = (materials: Pick<Materials, "train" | "eval">): RowPrints => ({
  train: printOf(materials.train),
  eval: printOf(materials.eval),
});

/** Which rows are not those before; none where that is not known. */
export const otherRows = (before: RowPrints | undefined, now: RowPrints): readonly (keyof RowPrints)[] =>
  before === undefined ? [] : (["train", "eval"] as const).filter((name) => before[name] !== now[name]);
