import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Objective, ObjectiveFields, Surrogate } from "../objectives/objective.js";
import { bnpo, cispo, dapo, drGrpo, gmpo, grpo, gspo, luspo, rlsd, sapo } from "../objectives/presets.js";

type Field = keyof ObjectiveFields;

/** Objectives that a run's `objective` may change. */
export const PRESETS = { rlsd, grpo, drGrpo, dapo, bnpo, gspo, cispo, sapo, luspo, gmpo };

/** The setting `objective` of a run: fields of an objective but `temperature`, which `rollout.temperature` sets. */
export type ObjectiveSetting = {
  readonly [K in Field as Exclude<K, "objective" | "temperature">]?: ObjectiveFields[K] | undefined;
} & {
  /** The objective that the fields change. Default: "rlsd", of the algorithms grpo and grpo+opsd "grpo". */
  readonly preset?: keyof typeof PRESETS | undefined;
  /** L_t, with r the ratio P / P_old. Default by preset. */
  readonly objective?: Exclude<Surrogate, "row-coefficient"> | undefined;
};

const RATIO: readonly Field[] = ["clipLow", "clipHigh"];
const BOUNDS: readonly Field[] = ["dualClip", "ratioBound"];
const GATE: readonly Field[] = ["sapoTemperaturePos", "sapoTemperatureNeg"];

/** Fields that are of some surrogates alone, by those which have no use for them (docs/maths.md). */
const UNUSED: Readonly<Record<Exclude<Surrogate, "row-coefficient">, readonly Field[]>> = {
  "ppo-clip": GATE,
  gspo: [...BOUNDS, ...GATE],
  "gspo-token": GATE,
  cispo: [...BOUNDS, ...GATE],
  sapo: [...RATIO, ...BOUNDS],
  luspo: GATE,
  gmpo: [...BOUNDS, ...GATE],
};

/**
 * Throws ERR_RLSD_CONFIG for a field of "objective" that its surrogate has no use for.
 *
 * @param given the fields of the settings
 * @param objective what they make
 * @param plain makes the same preset and surrogate without them
 */
export function checkSurrogateFields(
  given: Readonly<Record<string, unknown>>,
  objective: Objective,
  plain: () => Objective,
): void {
  if (objective.objective === "row-coefficient") return;
  const named = UNUSED[objective.objective].filter((name) => name in given);
  if (named.length === 0) return;
  const defaults = plain();
  const idle = named.find((name) => objective[name] !== defaults[name]);
  if (idle === undefined) return;
  const users = Object.entries(UNUSED).flatMap(([name, unused]) => (unused.includes(idle) ? [] : [name]));
  throw new RlsdError(
    "ERR_RLSD_CONFIG",
    `"objective.${idle}" is ${show(given[idle])}, but the surrogate ${objective.objective} has no use for it: ` +
      `leave it out (its default is ${show(defaults[idle])}), or take a preset of ${users.join(", ")}.`,
  );
}
