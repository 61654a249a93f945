import type { RunConfig } from "../trainer/run-folder.js";

/** A setting of config.json by its path, as in "objective.evidenceClip"; undefined: that version did not know it. */
export function setting({ config }: RunConfig, path: string): unknown {
  return path.split(".").reduce<unknown>((value, key) => {
    const known = typeof value === "object" && value !== null && Object.hasOwn(value, key);
    return known ? (value as Record<string, unknown>)[key] : undefined;
  }, config);
}

export function numberSetting(config: RunConfig, path: string): number | undefined {
  const value = setting(config, path);
  return typeof value === "number" ? value : undefined;
}

/** evidenceClip: weights go this far from 1, and colours are full there. The method's default where the run does not set it. */
export const clipOf = (config: RunConfig): number => numberSetting(config, "objective.evidenceClip") ?? 0.2;

/** Algorithms in which verdicts move no policy: they are counted, or none is given. */
const UNREWARDED = ["opsd", "sdpo", "opd", "sft"];

/** Whether a completion's advantage was learned from; where it was not it says nothing of the run. */
export const isRewarded = (config: RunConfig): boolean => !UNREWARDED.includes(settingText(config, "algorithm") ?? "");

/** A setting in a line: a text as it is, anything else as JSON; undefined where it is not there. */
export function settingText(config: RunConfig, path: string): string | undefined {
  const value = setting(config, path);
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A reward in a few words: a verifier's type, the parts of a sum with their weights, the cases of a switch. */
export function rewardText(reward: unknown): string {
  if (Array.isArray(reward)) return reward.map(partText).join(" + ");
  if (typeof reward !== "object" || reward === null) return String(reward);
  const { type, parts, gate, verifier, field, cases, otherwise } = reward as Readonly<Record<string, unknown>>;
  if (type === "sum") return rewardText(parts);
  if (type === "gate") return `${rewardText(verifier)} behind ${rewardText(gate)}`;
  if (type === "switch") {
    const all = Object.entries({ ...Object(cases), ...(otherwise !== undefined && { otherwise }) });
    return `by ${field}: ${all.map(([name, one]) => `${name} ${rewardText(one)}`).join(", ")}`;
  }
  return typeof type === "string" ? type : JSON.stringify(reward);
}

function partText(part: unknown): string {
  if (typeof part !== "object" || part === null) return String(part);
  const { verifier, weight = 1, name } = part as Readonly<Record<string, unknown>>;
  const told = typeof name === "string" ? name : rewardText(verifier);
  return weight === 1 ? told : `${weight} ${told}`;
}
