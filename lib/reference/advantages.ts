import type { Numbers } from "./batch.js";

interface AdvantageOptions {
  /** "mean": r - mean(group). "leave-one-out": r - mean of the others (RLOO). Default "mean". */
  readonly baseline?: "mean" | "leave-one-out";
  /** Divide by the standard deviation of the group, of all judged rewards, or not at all. Default "group". */
  readonly scale?: "group" | "batch" | "none";
  /** Added to the deviation. Default 1e-6. */
  readonly eps?: number;
  /** Degrees of freedom taken from the variance's divisor. Default 1. */
  readonly ddof?: number;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** sqrt(sum (r - mean)^2 / (n - ddof)); exactly 0 when all are equal to within rounding, whatever the mean rounds to. */
function deviation(values: readonly number[], ddof: number): number {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (high - low <= 4 * 2 ** -52 * Math.max(Math.abs(low), Math.abs(high))) return 0;
  const mean = sum(values) / values.length;
  return Math.sqrt(sum(values.map((value) => (value - mean) ** 2)) / (values.length - ddof));
}

/**
 * A_i = (r_i - baseline) / (std + eps) within each group; baseline and std as the options say.
 * A group whose rewards are all equal, to within rounding, gets exactly 0, so that rounding never chooses a sign. A reward of null is
 * left out of every statistic and gets 0; so does a group with fewer than two judged rewards.
 */
export function groupAdvantagesReference(
  rewards: ArrayLike<number | null>,
  groupIds: Numbers,
  { baseline = "mean", scale = "group", eps = 1e-6, ddof = 1 }: AdvantageOptions = {},
): Float64Array {
  const judged = Array.from(rewards, (reward, i) => ({ reward, i, group: groupIds[i]! })).filter(
    (entry): entry is { reward: number; i: number; group: number } => entry.reward !== null,
  );
  const batchDeviation =
    judged.length < 2
      ? 0
      : deviation(
          judged.map(({ reward }) => reward),
          ddof,
        );
  const advantages = new Float64Array(rewards.length);
  for (const { reward, i, group } of judged) {
    const members = judged.filter((entry) => entry.group === group).map((entry) => entry.reward);
    const groupDeviation = members.length < 2 ? 0 : deviation(members, ddof);
    if (groupDeviation === 0) continue;
    const mean = sum(members) / members.length;
    const others = (sum(members) - reward) / (members.length - 1);
    const centred = reward - (baseline === "mean" ? mean : others);
    const divisor = scale === "none" ? 1 : (scale === "group" ? groupDeviation : batchDeviation) + eps;
    advantages[i] = centred / divisor;
  }
  return advantages;
}
