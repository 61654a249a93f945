import { ALGORITHMS } from "./algorithms.js";
import { checkTogether } from "./config-checks.js";
import { checkNeeded } from "./given-checks.js";
import { type Given, resolveSettings, type Settings } from "./schema.js";
import { trainSchema } from "./settings.js";

/** What `train` takes: the settings that differ from their defaults. */
export type TrainConfig = Given<typeof trainSchema>;
/** Every setting of a run. */
export type ResolvedConfig = Settings<typeof trainSchema>;

/** Checks settings and fills in defaults; ERR_RLSD_CONFIG names the setting, what was expected and what came. */
export function resolveConfig(given: TrainConfig | Readonly<Record<string, unknown>>): ResolvedConfig {
  const config = resolveSettings(trainSchema, given) as ResolvedConfig;
  checkTogether(config);
  checkNeeded(given);
  const { check, source } = ALGORITHMS[config.algorithm];
  check(config);
  if (source === undefined || config.privileged.source !== "auto") return config;
  return { ...config, privileged: { ...config.privileged, source } };
}
