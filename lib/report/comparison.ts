import { differingPaths, leavesOf } from "../leaves.js";
import type { MetricsLine, RunConfig } from "../trainer/run-folder.js";
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
  readonly seeds: number;
  /** Held-out accuracy at the steps that all of the arm's runs have. */
  readonly curve: readonly ({ readonly step: number } & Spread)[];
  readonly last: Spread;
  /** Accuracy averaged over the curve's steps by trapezoids: what a run was worth on the way. */
  readonly average: Spread;
  /** The first step of the curve whose mean is at least the baseline's last; absent: none. */
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
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { mean, n };
  return { mean, sd: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1)), n };
}

/** Held-out accuracy by step. */
function accuracies({ metrics }: LoggedRun): Map<number, number> {
  const evals = metrics.filter((line) => line.kind === "eval" && typeof line.accuracy === "number");
  return new Map(evals.map((line) => [line.step, line.accuracy as number]));
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

/** Last accuracies of two arms, subtracted where they share a seed and both end at the same step. */
function pairedDifference(one: Curves, baseline: Curves): Spread | undefined {
  const step = one.steps.at(-1)!;
  if (step !== baseline.steps.at(-1)) return undefined;
  const lastOf = ({ arm, curves }: Curves) => new Map(arm.runs.map((run, i) => [seedOf(run), curves[i]!.get(step)!]));
  const base = lastOf(baseline);
  const pairs = [...lastOf(one)].filter(([seed]) => seed !== undefined && base.has(seed));
  return pairs.length === 0 ? undefined : spread(pairs.map(([seed, value]) => value - base.get(seed)!));
}

function resultOf(one: Curves, baseline: Curves): ArmResult {
  const { arm, curves, steps } = one;
  const curve = steps.map((step) => ({ step, ...spread(curves.map((c) => c.get(step)!)) }));
  const target = spread(baseline.curves.map((c) => c.get(baseline.steps.at(-1)!)!)).mean;
  const reaches = curve.find((point) => point.mean >= target)?.step;
  const difference = one === baseline ? undefined : pairedDifference(one, baseline);
  const stepMs = medianStepMs(arm.runs);
  return {
    name: arm.name,
    seeds: arm.runs.length,
    curve,
    last: spread(curves.map((c) => c.get(steps.at(-1)!)!)),
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

/** Runs as arms: those with the same settings but for the seed are one, named after what sets it apart. */
export function groupRuns(runs: readonly LoggedRun[]): ComparedArm[] {
  const differing = differingSettings(runs.map((run) => run.config));
  const arms = new Map<string, { name: string; runs: LoggedRun[] }>();
  for (const run of runs) {
    const map = new Map(leavesOf(run.config.config));
    const set = differing
      .filter((path) => map.has(path))
      .map((path) => `${path}=${map.get(path)!.replaceAll('"', "")}`);
    const key = JSON.stringify(differing.map((path) => map.get(path)));
    const arm = arms.get(key) ?? { name: set.join(" ") || (differing.length > 0 ? "defaults" : "all runs"), runs: [] };
    arm.runs.push(run);
    arms.set(key, arm);
  }
  return [...arms.values()];
}
