import { RlsdError } from "../errors.js";
import type { Objective } from "../objectives/objective.js";
import { type ObjectiveOptions, rlsd, rowCoefficient } from "../objectives/presets.js";
import { creditMixAt } from "../ops/schedule.js";
import { didYouMean } from "../suggest.js";
import type { ResolvedConfig } from "./config.js";
import { fail } from "./config-error.js";
import { checkSurrogateFields, PRESETS } from "./objective-fields.js";

/** What a step's teacher is asked for: nothing, log-probs of the drawn tokens, or its distributions at them. */
type TeacherView = "none" | "log-probs" | "distributions";

/** A divergence from the teacher, on the student's own completions, as a part of the loss. */
interface Distills {
  /** What the teacher reads before a completion: a prompt with privileged text, or the student's own. */
  readonly prompt: "privileged" | "own";
  /** Whether verdicts move the policy too; the divergence is then multiplied by `distill.weight`. */
  readonly rewarded: boolean;
}

/** One way of making an update. */
interface Algorithm {
  readonly summary: string;
  /** What a step learns from: completions that it draws and judges, or the traces that the rows bring. */
  readonly learnsFrom: "rollouts" | "traces";
  /** Absent: the loss has no such part. */
  readonly distills?: Distills;
  /** What `privileged.source` auto means; absent: what the row itself brings. */
  readonly source?: "sibling+feedback";
  /** Throws ERR_RLSD_CONFIG for settings that cannot work. Called before anything is loaded. */
  check(config: ResolvedConfig): void;
  /** "none": the teacher is not run at this step. */
  teacherView(config: ResolvedConfig, step: number): TeacherView;
  /** Share of the credit at this step. */
  creditMix(config: ResolvedConfig, step: number): number;
  /** What the update minimises, but for the two fields that change from step to step. */
  objective(config: ResolvedConfig): Objective;
}

/** The divergence that is estimated at the drawn tokens and learned as their advantages. */
const SAMPLED = "sampled-reverse-kl";

export const DIVERGENCES = ["jsd", "forward-kl", "reverse-kl", SAMPLED] as const;

/** Fields that the trainer sets itself, and the setting that says them. */
const ELSEWHERE: Readonly<Record<string, string>> = { temperature: "rollout.temperature" };

function objectiveOf(config: ResolvedConfig, fallback: keyof typeof PRESETS): Objective {
  const { preset = fallback, ...fields } = config.objective;
  const make = PRESETS[preset];
  if (typeof preset !== "string" || !Object.hasOwn(PRESETS, preset)) {
    throw new RlsdError(
      "ERR_RLSD_CONFIG",
      `There is no "objective.preset" ${JSON.stringify(preset)}.${didYouMean(String(preset), Object.keys(PRESETS))}`,
    );
  }
  for (const [name, instead] of Object.entries(ELSEWHERE)) {
    if (name in fields) throw new RlsdError("ERR_RLSD_CONFIG", `"objective.${name}" is set by "${instead}".`);
  }
  if ((fields as ObjectiveOptions).objective === "row-coefficient") {
    const message =
      '"objective.objective" is row-coefficient, which takes a coefficient a token: a run has none. Call policyLoss yourself.';
    throw new RlsdError("ERR_RLSD_CONFIG", message);
  }
  try {
    const objective = make({ ...fields, temperature: config.rollout.temperature });
    checkSurrogateFields(fields, objective, () => make({ objective: objective.objective }));
    return objective;
  } catch (error) {
    if (!(error instanceof RlsdError) || error.code === "ERR_RLSD_CONFIG") throw error;
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
  return rlsd(creditMix === undefined ? {} : { creditMix }, objectiveOf(config, "rlsd"));
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

/** A loss with a divergence from the teacher in it. The objective is the rest, and says how tokens are averaged in both. */
function distilling(summary: string, distills: Distills): Algorithm {
  const fallback = distills.rewarded ? "grpo" : "rlsd";
  return {
    summary,
    learnsFrom: "rollouts",
    distills,
    check(config) {
      objectiveOf(config, fallback);
      const { algorithm, privileged, teacher, distill } = config;
      if (distill.divergence === SAMPLED && distill.topK > 0) {
        fail(`"distill.topK" compares distributions, but "distill.divergence" is ${SAMPLED}: leave one of them out.`);
      }
      if (privileged.contrast) {
        fail(`"privileged.contrast" is for the credit of the algorithm rlsd: ${algorithm} has one teacher.`);
      }
      if (distills.prompt === "privileged" && privileged.source === "none") {
        fail(`The algorithm ${algorithm} needs privileged text, but "privileged.source" is none.`);
      }
      if (distills.prompt === "own" && teacher.kind !== "external") {
        fail(
          `The algorithm ${algorithm} learns from another model, but "teacher.kind" is ${teacher.kind}: set it to external, and "teacher.model" to a folder. For a teacher that is the model itself use opsd.`,
        );
      }
    },
    teacherView(config) {
      if (distillWeight(config) === 0) return "none";
      return config.distill.divergence === SAMPLED ? "log-probs" : "distributions";
    },
    creditMix: () => 0,
    objective: (config) => objectiveOf(config, fallback),
  };
}

const opsd = distilling(
  "on-policy self-distillation: the privileged teacher is imitated at every token; verdicts are counted, not learned from",
  { prompt: "privileged", rewarded: false },
);

const FROM_ATTEMPTS = ["auto", "sibling", "feedback", "sibling+feedback"];

const sdpo: Algorithm = {
  ...opsd,
  summary: "opsd whose teacher sees a successful sibling and the verifier's feedback, not what the row brings",
  source: "sibling+feedback",
  check(config) {
    opsd.check(config);
    const { source } = config.privileged;
    if (FROM_ATTEMPTS.includes(source)) return;
    fail(
      `The algorithm sdpo makes privileged text from attempts, but "privileged.source" is ${source}: set it to sibling+feedback, sibling or feedback, or take opsd.`,
    );
  },
};

const hybrid = distilling("the two losses added up: grpo, and distill.weight times opsd", {
  prompt: "privileged",
  rewarded: true,
});

const opd = distilling("on-policy distillation: another model is imitated, by the student's own prompts", {
  prompt: "own",
  rewarded: false,
});

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

type AlgorithmName = "rlsd" | "grpo" | "opsd" | "sdpo" | "grpo+opsd" | "opd" | "sft";

/** By name. A new way of making an update is one more entry. */
export const ALGORITHMS: Readonly<Record<AlgorithmName, Algorithm>> = {
  rlsd: credited,
  grpo: plain,
  opsd,
  sdpo,
  "grpo+opsd": hybrid,
  opd,
  sft: supervised,
};

export const ALGORITHM_NAMES = Object.keys(ALGORITHMS) as readonly AlgorithmName[];

/** How much of the divergence from the teacher is in the loss; 0: none. */
export function distillWeight({ algorithm, distill }: Pick<ResolvedConfig, "algorithm" | "distill">): number {
  const { distills } = ALGORITHMS[algorithm];
  if (distills === undefined) return 0;
  return distills.rewarded ? distill.weight : 1;
}

/** Whether a run imitates the traces of its rows. */
export const imitates = ({ algorithm }: Pick<ResolvedConfig, "algorithm">): boolean =>
  ALGORITHMS[algorithm].learnsFrom === "traces";

/** Whether any step of a run asks its teacher. */
export function asksTeacher(config: ResolvedConfig): boolean {
  const { teacherView } = ALGORITHMS[config.algorithm];
  for (let step = 1; step <= config.steps; step++) {
    if (teacherView(config, step) !== "none") return true;
  }
  return false;
}

/** Whether any step of a run shows its teacher a privileged text. */
export const showsPrivileged = (config: ResolvedConfig): boolean =>
  asksTeacher(config) && ALGORITHMS[config.algorithm].distills?.prompt !== "own";
