import { checkNumber, checkObject, checkWord, invalid, readable } from "../check.js";
import { RlsdError } from "../errors.js";

/** How rewards of one prompt are compared. */
export interface AdvantageOptions {
  /** "mean" (default): the group's mean. "leave-one-out": the mean of the others (RLOO). */
  readonly baseline?: "mean" | "leave-one-out" | undefined;
  /** Divide by the standard deviation of the "group" (default), of the "batch", or by nothing (Dr. GRPO). */
  readonly scale?: "group" | "batch" | "none" | undefined;
  /** Added to the standard deviation, where one is divided by. Default 1e-6. */
  readonly eps?: number | undefined;
  /** Delta degrees of freedom of that standard deviation. Default 1. */
  readonly ddof?: 0 | 1 | undefined;
}

const FIELDS: ReadonlySet<string> = new Set(["baseline", "scale", "eps", "ddof"]);

interface CheckedOptions {
  readonly leaveOneOut: boolean;
  readonly scale: "group" | "batch" | "none";
  readonly eps: number;
  readonly ddof: number;
}

function checkOptions(o: AdvantageOptions): CheckedOptions {
  checkObject(o, "options", FIELDS);
  const { baseline = "mean", scale = "group", eps = 1e-6, ddof = 1 } = o;
  checkWord(baseline, "baseline", ["mean", "leave-one-out"]);
  checkWord(scale, "scale", ["group", "batch", "none"]);
  checkNumber(eps, "eps", { min: 0 });
  if (ddof !== 0 && ddof !== 1) throw invalid("0 or 1", "ddof", ddof);
  return { leaveOneOut: baseline === "leave-one-out", scale, eps, ddof };
}

function judgedRewards(rewards: ArrayLike<number | null>, groupIds: ArrayLike<number>): (number | null)[] {
  return readable("an array", "rewards", () => {
    const count = rewards?.length;
    if (!Number.isSafeInteger(count) || count < 0) throw invalid("an array", "rewards", rewards);
    const ids = readable(`${count} ids`, "groupIds", () => groupIds?.length);
    if (ids !== count) throw invalid(`${count} ids`, "groupIds", groupIds);
    const judged = Array.from(rewards, (reward: unknown, i) => {
      if (reward === null || (typeof reward === "number" && Number.isFinite(reward))) return reward;
      throw invalid("a finite number or null", `rewards[${i}]`, reward, "A sample that was not judged has null.");
    });
    if (judged.length === count) return judged;
    throw new Error(`it has ${judged.length} elements and a length of ${count}`);
  });
}

function groupMembers(groupIds: ArrayLike<number>): Map<number, number[]> {
  const groups = new Map<number, number[]>();
  for (let i = 0; i < groupIds.length; i++) {
    const id = groupIds[i];
    if (typeof id !== "number" || Number.isNaN(id)) throw invalid("a number", `groupIds[${i}]`, id);
    const members = groups.get(id);
    if (members === undefined) groups.set(id, [i]);
    else members.push(i);
  }
  return groups;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

function standardDeviation(values: readonly number[], ddof: number): number {
  const centre = mean(values);
  const squares = values.reduce((a, v) => a + (v - centre) ** 2, 0);
  return Math.sqrt(squares / Math.max(1, values.length - ddof));
}

function extremes(values: readonly number[]): [low: number, high: number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

/**
 * True when every value is the same, or would be but for rounding (.1 + .7 and .8): no rounding may choose a sign.
 * 4 epsilons of the largest are what a sum of a few rewards can be off.
 */
export function areEqual(values: readonly number[]): boolean {
  const [low, high] = extremes(values);
  return !(high - low > 4 * Number.EPSILON * Math.max(Math.abs(low), Math.abs(high)));
}

/** A group's advantages, in double, each finite in float32: a spread that no square can hold would make them 0 or infinite. */
function scaled(values: readonly number[], id: number, o: CheckedOptions, batchDeviation: number): number[] {
  const centre = mean(values);
  const spread = o.leaveOneOut ? values.length / (values.length - 1) : 1;
  const deviation = o.scale === "group" ? standardDeviation(values, o.ddof) : batchDeviation;
  const divisor = o.scale === "none" ? 1 : deviation + o.eps;
  const advantages = values.map((value) => ((value - centre) * spread) / divisor);
  if (Number.isFinite(divisor) && advantages.every((a) => Number.isFinite(Math.fround(a)))) return advantages;
  const [low, high] = extremes(values);
  const message =
    `Expected rewards whose advantages are finite float32 numbers but those of group ${id} run from ${low} to ${high}. ` +
    "Scale the rewards; where they hardly differ, give an eps above 0.";
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
}

/**
 * Advantages of grouped rollouts: A_i = (r_i - mean) / (std + eps), in double.
 *
 * A group whose rewards are all equal, up to rounding, gets exactly 0. A reward of null (the verifier could not judge) leaves the sample
 * out of the statistics and gets 0; so does a whole group with fewer than two judged samples.
 *
 * @param rewards (B), finite numbers or null
 * @param groupIds (B); samples with the same id answer the same prompt, in any order
 * @returns (B)
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT; for a group of one sample, which has nothing to compare with, and for rewards
 *   so far apart, or with eps 0 so close together, that their advantages are not finite
 */
export function groupAdvantages(
  rewards: ArrayLike<number | null>,
  groupIds: ArrayLike<number>,
  options: AdvantageOptions = {},
): Float32Array {
  const o = checkOptions(options);
  const judged = judgedRewards(rewards, groupIds);
  const present = judged.filter((r) => r !== null);
  const batchDeviation = o.scale === "batch" ? standardDeviation(present, o.ddof) : 0;
  const advantages = new Float32Array(judged.length);
  for (const [id, members] of groupMembers(groupIds)) {
    if (members.length < 2) {
      const mend = "Sample at least two completions a prompt.";
      const message = `Expected groups of at least two samples but group ${id} has one (rewards[${members[0]}]). ${mend}`;
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
    }
    const seen = members.filter((i) => judged[i] !== null);
    const values = seen.map((i) => judged[i] as number);
    if (values.length < 2 || areEqual(values)) continue;
    const found = scaled(values, id, o, batchDeviation);
    for (const [k, i] of seen.entries()) advantages[i] = found[k] as number;
  }
  return advantages;
}

/** How groups of rewards look: what a trainer logs and drops. */
export interface GroupSummary {
  /** All of them, those of the next two included. */
  readonly groups: number;
  /** Groups whose judged rewards are all equal, up to rounding: no gradient. */
  readonly zeroVariance: number;
  /** Groups with fewer than two judged rewards: no gradient. */
  readonly unjudged: number;
}

/** Counts the groups that `groupAdvantages` gives no advantage. */
export function summarizeGroups(rewards: ArrayLike<number | null>, groupIds: ArrayLike<number>): GroupSummary {
  const judged = judgedRewards(rewards, groupIds);
  const groups = [...groupMembers(groupIds).values()].map((members) =>
    members.map((i) => judged[i] as number | null).filter((r) => r !== null),
  );
  return {
    groups: groups.length,
    zeroVariance: groups.filter((values) => values.length >= 2 && areEqual(values)).length,
    unjudged: groups.filter((values) => values.length < 2).length,
  };
}
