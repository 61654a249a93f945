/** What counts as a right answer where a reward has several parts. */
import { partName } from "../verifiers/registry.js";
import type { ResolvedConfig } from "./config.js";
import type { Judged } from "./judge.js";
import type { RewardSetting, WeightedReward } from "./settings.js";
import { sum } from "./statistics.js";

/** Names of a part inside parts, to be read; none: the verdict itself. */
type Path = readonly string[];

/** Verifiers of form: they say nothing about truth (docs/verifiers.md). */
const FORM: ReadonlySet<unknown> = new Set(["length", "repetition", "tags"]);

interface Shape {
  /** Parts that judge the answer. */
  readonly answer: readonly Path[];
  /** Whether these give all there is. */
  readonly right: Success;
  /** The most that there is to earn, and the most without the answer. */
  readonly full: number;
  readonly rest: number;
  readonly form: boolean;
}

type Spec = Readonly<Record<string, unknown>>;

/** Whether an answer is right, by a verdict on it. */
export type Success = (verdict: Judged) => boolean;

const full: Success = ({ unfined, reward }) => (unfined ?? reward ?? Number.NaN) >= 1;

/** By a part of the verdict; one that was not asked says nothing for the answer. */
const rightIn =
  (name: string, { right }: Pick<Shape, "right">): Success =>
  ({ detail }) => {
    const part = detail[name] as Judged | undefined;
    return part !== undefined && right({ ...part, detail: part.detail ?? {} });
  };

const below = (name: string, paths: readonly Path[]): Path[] => paths.map((path) => [name, ...path]);

/** Of a sum: its heaviest part that is not of form, or several that weigh the same; of form alone: all of it. */
function shapeOfSum(given: readonly WeightedReward[]): Shape {
  const parts = given
    .map((part) => ({ name: partName(part), weight: part.weight ?? 1, shape: shapeOf(part.verifier) }))
    .filter(({ weight }) => weight > 0);
  const form = parts.every(({ shape }) => shape.form);
  const most = sum(parts.map(({ weight, shape }) => weight * shape.full));
  const worth = ({ weight, shape }: (typeof parts)[number]) => (shape.form ? 0 : weight * shape.full);
  const heaviest = Math.max(...parts.map(worth));
  const chosen = form ? parts : parts.filter((part) => worth(part) === heaviest);
  const rest = most - sum(chosen.map(({ weight, shape }) => weight * (shape.full - shape.rest)));
  const rights = chosen.map(({ name, shape }) => rightIn(name, shape));
  return {
    answer: chosen.flatMap(({ name, shape }) => below(name, shape.answer)),
    right: rights.length === 0 ? full : (verdict) => rights.every((right) => right(verdict)),
    full: most,
    rest,
    form,
  };
}

/** Of a gate: what is behind it; where that is of form alone, what it lets through. */
function shapeOfGate({ gate, verifier }: Readonly<Record<"gate" | "verifier", RewardSetting>>): Shape {
  const [before, behind] = [shapeOf(gate), shapeOf(verifier)];
  const [name, shape] = behind.form && !before.form ? (["gate", before] as const) : (["verifier", behind] as const);
  return { ...behind, answer: below(name, shape.answer), right: rightIn(name, shape), form: shape.form };
}

/** Of a switch: the one that was asked. A verdict of it has no other part. */
function shapeOfSwitch({ cases, otherwise }: Readonly<Record<string, unknown>>): Shape {
  const all = Object.entries({ ...(cases as Spec), ...(otherwise !== undefined && { otherwise }) });
  const shapes = all.map(([name, reward]) => [name, shapeOf(reward as RewardSetting)] as const);
  const most = (name: "full" | "rest") => Math.max(...shapes.map(([, shape]) => shape[name]));
  const paths = shapes.map(([name, { answer }]) =>
    below(name, answer)
      .map((path) => path.join("."))
      .join(" and "),
  );
  return {
    answer: [[`(${paths.join(" or ")})`]],
    right: (verdict) => shapes.some(([name, shape]) => rightIn(name, shape)(verdict)),
    full: most("full"),
    rest: most("rest"),
    form: shapes.every(([, { form }]) => form),
  };
}

function shapeOf(reward: RewardSetting): Shape {
  if (Array.isArray(reward)) return shapeOfSum(reward);
  const spec = reward as Spec;
  const type = typeof reward === "string" ? reward : spec.type;
  if (type === "sum") return shapeOfSum(spec.parts as readonly WeightedReward[]);
  if (type === "gate") return shapeOfGate(spec as unknown as Readonly<Record<"gate" | "verifier", RewardSetting>>);
  if (type === "switch") return shapeOfSwitch(spec);
  return { answer: [[]], right: full, full: 1, rest: 0, form: FORM.has(type) };
}

export interface SuccessRule {
  /** The least reward of a right answer; null: its parts decide. */
  readonly threshold: number | null;
  /** The parts that judge the answer, dots between the names of one inside another; none: the reward has no parts. */
  readonly parts: readonly string[];
  /** The most that a wrong answer earns by the other parts. */
  readonly rest: number;
}

const pathsOf = ({ answer }: Shape): readonly Path[] => (answer.length === 0 ? [[]] : answer);

/** By what a completion is a success: a threshold that was set, else that the parts which judge the answer give 1. */
export function successRule(reward: RewardSetting, threshold: number | null): SuccessRule {
  const shape = shapeOf(reward);
  const parts = pathsOf(shape).filter((path) => path.length > 0);
  return { threshold, parts: parts.map((path) => path.join(".")), rest: Number(shape.rest.toPrecision(12)) };
}

function createSuccess(reward: RewardSetting, threshold: number | null): Success {
  if (threshold !== null) return (verdict) => (verdict.unfined ?? verdict.reward ?? Number.NaN) >= threshold;
  const { right } = shapeOf(reward);
  return (verdict) => verdict.reward !== null && right(verdict);
}

/** Whether an answer is right, however it is fined for its length. */
export const rightBy = (config: Pick<ResolvedConfig, "reward" | "eval">): Success =>
  createSuccess(config.reward, config.eval.successThreshold);

/** Whether a completion is one to show, or not to: a fine counts. */
export function succeededBy({ reward, privileged }: Pick<ResolvedConfig, "reward" | "privileged">): Success {
  const { successThreshold: threshold } = privileged;
  const success = createSuccess(reward, threshold);
  return (verdict) => {
    if (threshold !== null) return success({ reward: verdict.reward, detail: verdict.detail });
    return verdict.unfined === undefined && success(verdict);
  };
}
