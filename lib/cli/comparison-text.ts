import type { ArmResult, Comparison } from "../report/comparison.js";
import { accuracyText, endsNote, pointsText, reachText, seedNotes } from "../report/comparison-words.js";
import { visible } from "../report/html.js";
import { tableLines } from "./table.js";

/** Columns of steps that fit on a line; the first and the last are always among them. */
const STEPS = 7;

function chosen(steps: readonly number[]): number[] {
  const count = Math.min(STEPS, steps.length);
  const at = (i: number) => steps[Math.round((i * (steps.length - 1)) / Math.max(1, count - 1))]!;
  return Array.from({ length: count }, (_, i) => at(i));
}

/** The baseline's steps, and those after its end that others came to. */
function stepsOf([baseline, ...others]: readonly ArmResult[]): number[] {
  const own = baseline!.curve.map(({ step }) => step);
  const later = others.flatMap(({ curve }) => curve.map(({ step }) => step)).filter((step) => step > own.at(-1)!);
  return [...own, ...[...new Set(later)].sort((a, b) => a - b)];
}

/** A comparison for a terminal: accuracy by step, and what it comes to. */
export function comparisonText(comparison: Comparison): string {
  const { arms, baseline } = comparison;
  const steps = chosen(stepsOf(arms));
  const ended = endsNote(comparison);
  const rows = arms.map(({ name, curve, last }) => {
    const cells = steps.map((step) => curve.find((point) => point.step === step));
    const told = cells.map((cell) => (cell === undefined ? "-" : accuracyText(cell)));
    return [name, ...told, ...(ended === undefined ? [] : [accuracyText(last)])];
  });
  const head = ["held-out accuracy", ...steps.map((step) => `step ${step}`), ...(ended === undefined ? [] : ["last"])];
  const table = [head, ...rows];
  const lines = tableLines(table);
  for (const arm of arms.slice(1)) {
    lines.push(reachText(arm, comparison));
    if (arm.difference === undefined) continue;
    lines.push(
      `${arm.name} - ${baseline} at the end: ${pointsText(arm.difference)} points, ${arm.difference.n} ${arm.difference.n === 1 ? "seed" : "seeds"} in both`,
    );
  }
  if (arms.some((arm) => arm.runs > 1)) lines.push("± is the standard deviation over the seeds");
  if (ended !== undefined) lines.push(ended);
  // A name may be made of settings, and those of anything.
  return [...lines, ...seedNotes(comparison)].map(visible).join("\n");
}
