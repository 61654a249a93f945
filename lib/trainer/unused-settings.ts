/** Settings that a run has no use for: one file serves `--set`, arms of a comparison and stages of training. */
import { isObject } from "../check.js";
import { ALGORITHMS, asksTeacher, distillWeight, imitates, showsPrivileged } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import { comparesDistributions } from "./distillation.js";

/** Why settings are without use; undefined: they are used. */
type Reason = (config: ResolvedConfig) => string | undefined;

const where =
  (is: (config: ResolvedConfig) => boolean, because: string | ((config: ResolvedConfig) => string)): Reason =>
  (config) => {
    if (!is(config)) return undefined;
    return typeof because === "string" ? because : because(config);
  };

const objectiveOf = (config: ResolvedConfig) => ALGORITHMS[config.algorithm].objective(config);

const KL = ["klEstimator", "klClamp", "klImportanceCorrection"];
const CREDIT = ["creditMix", "evidenceClip", "negativeOnly", "clipMode", "normalize", "studentSource"];
const RATIO = ["clipLow", "clipHigh", "dualClip"];
const SURROGATE = ["ratioBound", "importanceCorrection", "importanceMin", "importanceMax"];

const NO_EVAL = where(({ data }) => data.eval.length === 0, "data.eval is empty");

const ofObjective = (names: readonly string[]) => names.map((name) => `objective.${name}`);

/** `needed`: the settings one of which has to be given beside `names`, as their defaults leave these without effect. */
type Rule = readonly [names: readonly string[], reason: Reason, needed?: readonly string[]];

/** In this order; a section's name stands for all of it. */
const RULES: readonly Rule[] = [
  [
    ["rollout.count", "rollout.temperature", "groups", "advantage", "objective"],
    where(imitates, "algorithm sft learns from traces"),
  ],
  [
    ["sft"],
    where(
      (config) => !imitates(config),
      ({ algorithm }) => `algorithm ${algorithm} learns from what is drawn`,
    ),
  ],
  [["teacher", "privileged", "span"], where((config) => !asksTeacher(config), "no step asks a teacher")],
  [["privileged"], where((config) => !showsPrivileged(config), "the teacher reads the student's own prompts")],
  [
    ["creditSchedule", ...ofObjective(CREDIT)],
    where(
      ({ algorithm }) => algorithm !== "rlsd",
      ({ algorithm }) => `algorithm ${algorithm} gives no credit`,
    ),
  ],
  [["distill"], where(({ algorithm }) => ALGORITHMS[algorithm].distills === undefined, "no teacher is imitated")],
  [
    ["divergence", "beta", "topK", "tail", "valueClamp"].map((name) => `distill.${name}`),
    where((config) => distillWeight(config) === 0, "distill.weight is 0"),
  ],
  [
    ["distill.weight"],
    where(({ algorithm }) => !ALGORITHMS[algorithm].distills?.rewarded, "the divergence is all of the loss"),
  ],
  [
    ofObjective([...RATIO, ...SURROGATE]),
    where(
      (config) => comparesDistributions(config) && !ALGORITHMS[config.algorithm].distills!.rewarded,
      "no advantage is learned from",
    ),
  ],
  [
    ofObjective([...RATIO, "studentSource"]),
    where(({ update }) => update.epochs * update.minibatches === 1, "a step has one update, whose ratios are 1"),
  ],
  [ofObjective(KL), where((config) => objectiveOf(config).klCoef === 0, "objective.klCoef is 0"), ["objective.klCoef"]],
  [["eval.every", "eval.atStart"], NO_EVAL],
  [["eval.limit", "eval.samples", "stop.minDelta"], NO_EVAL, ["data.eval"]],
  [
    ["eval.temperature", "eval.passAt"],
    where(({ eval: { samples } }) => samples === 0, "eval.samples is 0"),
    ["eval.samples"],
  ],
  [
    ["overlong.buffer", "overlong.penalty"],
    where(({ overlong }) => overlong.mode !== "penalty", "overlong.mode is not penalty"),
    ["overlong.mode"],
  ],
  [
    ["groups.maxResamples"],
    where(({ groups }) => groups.zeroVariance !== "resample", "groups.zeroVariance is not resample"),
    ["groups.zeroVariance"],
  ],
  [
    ["creditSchedule.hold"],
    where(({ creditSchedule }) => creditSchedule.decay === 0, "creditSchedule.decay is 0"),
    ["creditSchedule.decay"],
  ],
  [
    ["creditSchedule.stepBase"],
    where(
      ({ creditSchedule: { warmup, decay } }) => warmup + decay === 0,
      "creditSchedule has neither warmup nor decay",
    ),
    ["creditSchedule.warmup", "creditSchedule.decay"],
  ],
  [
    ["lora.alpha", "lora.rankStabilized", "lora.targets"],
    where(({ lora }) => lora.rank === 0, "lora.rank is 0"),
    ["lora.rank"],
  ],
  [
    ["teacher.every"],
    where(({ teacher }) => teacher.kind !== "periodic", "teacher.kind is not periodic"),
    ["teacher.kind"],
  ],
  [["teacher.rate"], where(({ teacher }) => teacher.kind !== "ema", "teacher.kind is not ema"), ["teacher.kind"]],
  [
    ["teacher.model"],
    where(({ teacher }) => teacher.kind !== "external", "teacher.kind is not external"),
    ["teacher.kind"],
  ],
  [["distill.tail"], where(({ distill }) => distill.topK === 0, "distill.topK is 0"), ["distill.topK"]],
  [
    ["optimizer.minRatio"],
    where(({ optimizer }) => optimizer.schedule === "constant", "optimizer.schedule is constant"),
    ["optimizer.schedule"],
  ],
  [["rollout.turns"], where(({ environment }) => environment === null, "environment is null"), ["environment"]],
];

/** What settings need of which one has to be given; and these. */
export const NEEDED: readonly (readonly [needed: readonly string[], names: readonly string[]])[] = [
  ...RULES.flatMap(([names, , needed]) => (needed === undefined ? [] : [[needed, names] as const])),
  // Of the algorithms that may be given sdpo looks for successes by itself.
  [["privileged.source", "privileged.contrast", "algorithm"], ["privileged.successThreshold"]],
];

/** Names of settings that are not as in `defaults`; of the objective all that are given. */
function changed(config: object, defaults: object, prefix = ""): string[] {
  return Object.entries(config).flatMap(([key, value]) => {
    const name = prefix + key;
    if (name === "objective") return Object.keys(value as object).map((field) => `objective.${field}`);
    const fallback = (defaults as Readonly<Record<string, unknown>>)[key];
    if (isObject(fallback) && name !== "data.templateVariables") return changed(value as object, fallback, `${name}.`);
    return value === fallback || JSON.stringify(value) === JSON.stringify(fallback) ? [] : [name];
  });
}

/** Settings without use, and why. */
export interface UnusedSettings {
  readonly settings: readonly string[];
  readonly because: string;
}

/**
 * Settings that are not their defaults and that this run leaves aside.
 *
 * @param defaults of all settings
 */
export function unusedSettings(config: ResolvedConfig, defaults: object): UnusedSettings[] {
  let left = changed(config, defaults);
  return RULES.flatMap(([names, reason]) => {
    const because = reason(config);
    if (because === undefined) return [];
    const mine = (name: string) => names.some((one) => name === one || name.startsWith(`${one}.`));
    const settings = left.filter(mine);
    left = left.filter((name) => !mine(name));
    return settings.length === 0 ? [] : [{ settings, because }];
  });
}
