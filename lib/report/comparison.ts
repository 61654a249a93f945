import { differingPaths, leavesOf } from "../leaves.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import type { RunConfig } from "../trainer/run-folder.js";
import { mean } from "./numbers.js";
import { numberSetting } from "./settings.js";

/** A run with what was logged of it. */
export interface LoggedRun {
  readonly name: string;
  /** Where its report lies, as a link of the page sees it. */
  readonly link?: string;
  readonly config: RunConfig;
  readonly metrics: readonly MetricsLine[];
}

/** Runs that differ in nothing but their seed. */
export interface ComparedArm {
  readonly name: string;
  readonly runs: readonly LoggedRun[];
}

export interface Spread {
  readonly mean: number;
  /** Standard deviation over n - 1; absent for one value. */
  readonly sd?: number;
  readonly n: number;
}

/** What an arm did, over its runs. */
export interface ArmResult {
  readonly name: string;
  readonly runs: number;
  /** Different ones among the runs. */
  readonly seeds: number;
  /** Seeds of more than one run: such runs say no more than one of them. */
  readonly repeatedSeeds: readonly number[];
  /** Held-out accuracy at the steps that all of the arm's runs have. */
  readonly curve: readonly ({ readonly step: number } & Spread)[];
  /** Steps of the runs' last evaluations, the first and the last of them: a run may end before its last step. */
  readonly ends: { readonly from: number; readonly to: number };
  /** Each run's own last accuracy, wherever it ended. */
  readonly last: Spread;
  /** Accuracy averaged over the curve's steps by trapezoids: what a run was worth on the way. */
  readonly average: Spread;
  /** The first step at which the mean is at least the baseline's last, a run that has ended staying as it is; absent: none. */
  readonly reachesBaseline?: number;
  /** Last accuracy minus the baseline's, seed by seed where both have it; absent for the baseline. */
  readonly difference?: Spread;
  /** Milliseconds of a step: median over all its steps. */
  readonly stepMs?: number;
}

export interface Comparison {
  /** Name of the arm that the others are measured against: the first. */
  readonly baseline: string;
  readonly arms: readonly ArmResult[];
}

export function spread(values: readonly number[]): Spread {
  const n = values.length;
  const middle = mean(values);
  if (n < 2) return { mean: middle, n };
  return { mean: middle, sd: Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (n - 1)), n };
}

/** Held-out accuracy by step, steps in order. */
function accuracies({ metrics }: LoggedRun): Map<number, number> {
  const evals = metrics.filter((line) => line.kind === "eval" && typeof line.accuracy === "number");
  return new Map(evals.map((line) => [line.step, line.accuracy as number] as const).sort(([a], [b]) => a - b));
}

/** The last evaluation of a run. */
function endOf(curve: ReadonlyMap<number, number>): { readonly step: number; readonly accuracy: number } {
  const [step, accuracy] = [...curve].at(-1)!;
  return { step, accuracy };
}

const commonSteps = (curves: readonly ReadonlyMap<number, number>[]): number[] =>
  [...(curves[0]?.keys() ?? [])].filter((step) => curves.every((curve) => curve.has(step))).sort((a, b) => a - b);

/** Mean over the steps, by trapezoids; of one step its value. */
function average(curve: ReadonlyMap<number, number>, steps: readonly number[]): number {
  if (steps.length === 1) return curve.get(steps[0]!)!;
  const areas = steps.slice(1).map((step, i) => ((step - steps[i]!) * (curve.get(step)! + curve.get(steps[i]!)!)) / 2);
  return areas.reduce((a, b) => a + b, 0) / (steps.at(-1)! - steps[0]!);
}

function medianStepMs(runs: readonly LoggedRun[]): number | undefined {
  const times = runs.flatMap(({ metrics }) =>
    metrics.flatMap((line) => (line.kind === "train" && line.time.total !== undefined ? [line.time.total] : [])),
  );
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
}

const seedOf = ({ config }: LoggedRun): number | undefined => numberSetting(config, "seed");

interface Curves {
  readonly arm: ComparedArm;
  readonly curves: readonly ReadonlyMap<number, number>[];
  readonly steps: readonly number[];
}

const lastOf = ({ curves }: Curves): Spread => spread(curves.map((curve) => endOf(curve).accuracy));

/** Last accuracy by seed; of a seed that was run more than once the mean. */
function lastBySeed({ arm, curves }: Curves): Map<number, number> {
  const values = new Map<number, number[]>();
  for (const [i, run] of arm.runs.entries()) {
    const seed = seedOf(run);
    if (seed !== undefined) values.set(seed, [...(values.get(seed) ?? []), endOf(curves[i]!).accuracy]);
  }
  return new Map([...values].map(([seed, all]) => [seed, mean(all)]));
}

/** Last accuracies of two arms, subtracted where they share a seed. */
function pairedDifference(one: Curves, baseline: Curves): Spread | undefined {
  const base = lastBySeed(baseline);
  const pairs = [...lastBySeed(one)].filter(([seed]) => base.has(seed));
  return pairs.length === 0 ? undefined : spread(pairs.map(([seed, value]) => value - base.get(seed)!));
}

/** The first step at which all runs were evaluated or had ended, and are at `target` on average. */
function reaching({ curves }: Curves, target: number): number | undefined {
  const ends = curves.map(endOf);
  const at = (step: number, i: number) =>
    curves[i]!.get(step) ?? (step > ends[i]!.step ? ends[i]!.accuracy : undefined);
  const steps = [...new Set(curves.flatMap((curve) => [...curve.keys()]))].sort((a, b) => a - b);
  return steps.find((step) => {
    const known = curves.map((_, i) => at(step, i)).filter((value) => value !== undefined);
    return known.length === curves.length && mean(known) >= target;
  });
}

/** How many seeds runs have, and which of them more than one run has; a run that names none has one of its own. */
function seedsOf({ runs }: ComparedArm) {
  const seeds = runs.map(seedOf).filter((seed) => seed !== undefined);
  const repeated = new Set(seeds.filter((seed, i) => seeds.indexOf(seed) !== i));
  return { seeds: new Set(seeds).size + runs.length - seeds.length, repeatedSeeds: [...repeated] };
}

function resultOf(one: Curves, baseline: Curves): ArmResult {
  const { arm, curves, steps } = one;
  const curve = steps.map((step) => ({ step, ...spread(curves.map((c) => c.get(step)!)) }));
  const ends = curves.map((c) => endOf(c).step);
  const reaches = reaching(one, lastOf(baseline).mean);
  const difference = one === baseline ? undefined : pairedDifference(one, baseline);
  const stepMs = medianStepMs(arm.runs);
  return {
    name: arm.name,
    runs: arm.runs.length,
    ...seedsOf(arm),
    curve,
    ends: { from: Math.min(...ends), to: Math.max(...ends) },
    last: lastOf(one),
    average: spread(curves.map((c) => average(c, steps))),
    ...(reaches !== undefined && { reachesBaseline: reaches }),
    ...(difference && { difference }),
    ...(stepMs !== undefined && { stepMs }),
  };
}

/** Compares arms by their held-out accuracy; undefined where an arm has no evaluation that all its runs share. */
export function compareArms(arms: readonly ComparedArm[]): Comparison | undefined {
  const all = arms.map((arm) => {
    const curves = arm.runs.map(accuracies);
    return { arm, curves, steps: commonSteps(curves) };
  });
  if (all.length === 0 || all.some(({ steps }) => steps.length === 0)) return undefined;
  return { baseline: all[0]!.arm.name, arms: all.map((one) => resultOf(one, all[0]!)) };
}

/** Where a run differs without being another way of training. */
const NOT_COMPARED = new Set(["seed", "output"]);

/** Paths of the settings that are not the same in all runs, but for seed and output. */
export function differingSettings(configs: readonly RunConfig[]): string[] {
  return differingPaths(configs.map(({ config }) => config)).filter((path) => !NOT_COMPARED.has(path));
}

type Leaves = ReadonlyMap<string, string>;

/** Whether an arm has of a setting what more than half of all have: that says little of it. */
function isUsual(arm: Leaves, path: string, arms: readonly Leaves[]): boolean {
  return 2 * arms.filter((other) => other.get(path) === arm.get(path)).length > arms.length;
}

/** Names of arms by what sets them apart: the first such setting, and of the others what is not as in most. */
function namesOf(arms: readonly Leaves[], differing: readonly string[]): string[] {
  if (differing.length === 0) return arms.map(() => "all runs");
  const named = (paths: (arm: Leaves) => readonly string[]) =>
    arms.map((arm) => {
      const set = paths(arm).filter((path) => arm.has(path));
      return set.map((path) => `${path}=${arm.get(path)!.replaceAll('"', "")}`).join(" ") || "defaults";
    });
  const [first, ...others] = differing;
  const short = named((arm) => [first!, ...others.filter((path) => !isUsual(arm, path, arms))]);
  return new Set(short).size === arms.length ? short : named(() => differing);
}

/** Runs as arms: those with the same settings but for the seed are one, named after what sets it apart. */
export function groupRuns(runs: readonly LoggedRun[]): ComparedArm[] {
  const differing = differingSettings(runs.map((run) => run.config));
  const arms = new Map<string, { leaves: Leaves; runs: LoggedRun[] }>();
  for (const run of runs) {
    const leaves = new Map(leavesOf(run.config.config));
    const key = JSON.stringify(differing.map((path) => leaves.get(path)));
    const arm = arms.get(key) ?? { leaves, runs: [] };
    arm.runs.push(run);
    arms.set(key, arm);
  }
  const all = [...arms.values()];
  const names = namesOf(
    all.map(({ leaves }) => leaves),
    differing,
  );
  return all.map(({ runs: own }, i) => ({ name: names[i]!, runs: own }));
}
