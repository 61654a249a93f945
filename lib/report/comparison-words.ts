import type { ArmResult, Comparison, Spread } from "./comparison.js";
import { percent, signed } from "./numbers.js";

/** What the page and the terminal say of a comparison in the same words. */

const deviation = ({ sd }: Spread): string => (sd === undefined ? "" : ` \u00b1 ${(100 * sd).toFixed(1)}`);

export const accuracyText = (accuracy: Spread): string => percent(accuracy.mean) + deviation(accuracy);

/** A difference in percentage points. */
export const pointsText = (difference: Spread): string => signed(100 * difference.mean, 1) + deviation(difference);

/** Where the runs of an arm ended: 60, or 20 to 60. */
export const endsText = ({ ends: { from, to } }: ArmResult): string => (from === to ? String(to) : `${from} to ${to}`);

/** That the baseline shows nothing which an arm could reach; undefined: it does. */
function nothingToReach(arm: ArmResult, base: ArmResult): string | undefined {
  const [first, ...later] = base.curve;
  if (first === undefined || later.length === 0 || base.last.mean > first.mean) return undefined;
  const end = percent(base.last.mean);
  if ([arm, base].every(({ curve, last }) => [last, ...curve].every(({ mean }) => mean === first.mean))) {
    return `${arm.name} and ${base.name} are at ${end} at every evaluation: no accuracy was gained`;
  }
  return `${base.name} ends at ${end}, no higher than at step ${first.step}: there is nothing for ${arm.name} to reach`;
}

/** How fast an arm was where the baseline ended: the method's claim is steps, so that is told first. */
export function reachText(arm: ArmResult, { baseline, arms }: Comparison): string {
  const base = arms[0]!;
  const nothing = nothingToReach(arm, base);
  if (nothing !== undefined) return nothing;
  const { name, reachesBaseline } = arm;
  const last = `${baseline}'s last ${percent(base.last.mean)}`;
  const steps = base.ends.from === base.ends.to ? "step" : "steps";
  if (reachesBaseline === undefined) return `${name} does not reach ${last} (${steps} ${endsText(base)})`;
  return `${name} is at ${last} by step ${reachesBaseline} of ${endsText(base)}`;
}

/** That runs ended at different steps: what is compared are their ends, not one step. undefined: they did not. */
export function endsNote({ arms }: Comparison): string | undefined {
  if (new Set(arms.flatMap(({ ends }) => [ends.from, ends.to])).size === 1) return undefined;
  const told = arms.map((arm) => `${arm.name} ${endsText(arm)}`).join(", ");
  return `Runs ended at different steps (${told}): last is where each of them ended, and a curve ends with the first run of its arm.`;
}

/** Runs that show nothing about their seeds' luck: that must not be overlooked. */
export function seedNotes({ arms }: Comparison): string[] {
  const notes = arms.flatMap(({ name, repeatedSeeds, runs, seeds }) => {
    if (repeatedSeeds.length === 0) return [];
    const which = `${repeatedSeeds.length === 1 ? "seed" : "seeds"} ${repeatedSeeds.join(", ")}`;
    return [
      `${name} has ${which} more than once: its ${runs} runs are ${seeds} independent ${seeds === 1 ? "one" : "ones"}.`,
    ];
  });
  const single = arms.some(({ seeds }) => seeds === 1);
  return single ? [...notes, "One seed in an arm: a difference may be chance."] : notes;
}
