import { RlsdError } from "../errors.js";
import type { Objective } from "../objectives/objective.js";
import {
  bnpo,
  cispo,
  dapo,
  drGrpo,
  gmpo,
  grpo,
  gspo,
  luspo,
  type ObjectiveOptions,
  rlsd,
  rowCoefficient,
  sapo,
} from "../objectives/presets.js";
import { creditMixAt } from "../ops/schedule.js";
import { didYouMean } from "../suggest.js";
import type { ResolvedConfig } from "./config.js";

/** What a step's teacher is asked for. */
export type TeacherView = "none" | "log-probs";

/** One way of making an update. */
export interface Algorithm {
  readonly summary: string;
  /** What a step learns from: completions that it draws and judges, or the traces that the rows bring. */
  readonly learnsFrom: "rollouts" | "traces";
  /** Throws ERR_RLSD_CONFIG for settings that cannot work. Called before anything is loaded. */
  check(config: ResolvedConfig): void;
  /** "none": the teacher is not run at this step. */
  teacherView(config: ResolvedConfig, step: number): TeacherView;
  /** Share of the credit at this step. */
  creditMix(config: ResolvedConfig, step: number): number;
  /** What the update minimises, but for the two fields that change from step to step. */
  objective(config: ResolvedConfig): Objective;
}

const PRESETS = { rlsd, grpo, drGrpo, dapo, bnpo, gspo, cispo, sapo, luspo, gmpo };

/** Fields that the trainer sets itself, and the setting that says them. */
const ELSEWHERE: Readonly<Record<string, string>> = { temperature: "rollout.temperature" };

function objectiveOf(config: ResolvedConfig, fallback: keyof typeof PRESETS): Objective {
  const { preset = fallback, ...fields } = config.objective;
  const make = PRESETS[preset as keyof typeof PRESETS];
  if (typeof preset !== "string" || !Object.hasOwn(PRESETS, preset)) {
    throw new RlsdError(
      "ERR_RLSD_CONFIG",
      `There is no "objective.preset" ${JSON.stringify(preset)}.${didYouMean(String(preset), Object.keys(PRESETS))}`,
    );
  }
  for (const [name, instead] of Object.entries(ELSEWHERE)) {
    if (name in fields) throw new RlsdError("ERR_RLSD_CONFIG", `"objective.${name}" is set by "${instead}".`);
  }
  if (fields.objective === "row-coefficient") {
    const message =
      '"objective.objective" is row-coefficient, which takes a coefficient a token: a run has none. Call policyLoss yourself.';
    throw new RlsdError("ERR_RLSD_CONFIG", message);
  }
  try {
    return make({ ...(fields as ObjectiveOptions), temperature: config.rollout.temperature });
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    throw new RlsdError("ERR_RLSD_CONFIG", `"objective": ${error.message}`, { cause: error });
  }
}

const plain: Algorithm = {
  summary: "the objective alone: every token of a completion gets the same advantage",
  learnsFrom: "rollouts",
  check: (config) => void objectiveOf(config, "grpo"),
  teacherView: () => "none",
  creditMix: () => 0,
  objective: (config) => objectiveOf(config, "grpo"),
};

/** The objective with credit on top: presets other than rlsd have none of their own. */
const creditedObjective = (config: ResolvedConfig): Objective => {
  const { creditMix } = config.objective;
  return rlsd(creditMix === undefined ? {} : { creditMix: creditMix as number }, objectiveOf(config, "rlsd"));
};

const credited: Algorithm = {
  summary: "the objective with per-token credit from the privileged teacher",
  learnsFrom: "rollouts",
  check(config) {
    creditedObjective(config);
    if (config.privileged.source === "none") {
      throw new RlsdError(
        "ERR_RLSD_CONFIG",
        'The algorithm rlsd needs privileged text, but "privileged.source" is none. For the bare objective use algorithm grpo.',
      );
    }
  },
  teacherView: (config, step) => (credited.creditMix(config, step) > 0 ? "log-probs" : "none"),
  creditMix: (config, step) =>
    creditMixAt(step, { ...config.creditSchedule, peak: creditedObjective(config).creditMix }),
  objective: creditedObjective,
};

/** Cross-entropy at temperature 1, its mean over the tokens of an update. */
const imitation = rowCoefficient({ reduction: "token-mean" });

const supervised: Algorithm = {
  summary: "supervised fine-tuning: the traces of the rows, token by token; nothing is drawn or judged in a step",
  learnsFrom: "traces",
  // The objective is for the run that goes on from this one, often by the same file.
  check: (config) => void objectiveOf(config, "rlsd"),
  teacherView: () => "none",
  creditMix: () => 0,
  objective: () => imitation,
};

/** By name. A new way of making an update is one more entry. */
export const ALGORITHMS: Readonly<Record<string, Algorithm>> = { rlsd: credited, grpo: plain, sft: supervised };

/** Whether a run imitates the traces of its rows. */
export const imitates = ({ algorithm }: Pick<ResolvedConfig, "algorithm">): boolean =>
  ALGORITHMS[algorithm]!.learnsFrom === "traces";

/** Whether any step of a run asks its teacher. */
export function asksTeacher(config: ResolvedConfig): boolean {
  const { teacherView } = ALGORITHMS[config.algorithm]!;
  for (let step = 1; step <= config.steps; step++) {
    if (teacherView(config, step) !== "none") return true;
  }
  return false;
}
