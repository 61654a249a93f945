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

/** A setting in a line: a text as it is, anything else as JSON; undefined where it is not there. */
export function settingText(config: RunConfig, path: string): string | undefined {
  const value = setting(config, path);
  return typeof value === "string" ? value : JSON.stringify(value);
}
