/** What the largest step of a run takes in memory. */
import { modelUnder } from "../policy/adapter-folder.js";
import type { CachedDraw } from "../policy/cache-bytes.js";
import type { Policy } from "../policy/policy.js";
import { weightBytes } from "../policy/weight-bytes.js";
import { ALGORITHMS, asksTeacher, imitates } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import { comparesDistributions } from "./distillation.js";
import type { Materials } from "./prepare.js";
import { PROMPTS_A_CALL, type Prompted } from "./rollout.js";
import { extremes, sum } from "./statistics.js";
import { parametersOf } from "./student.js";

/** The largest step that there may be, in tokens. */
interface StepShape {
  readonly sequences: number;
  /** Of the longest sequence. */
  readonly longest: number;
  readonly tokens: number;
  /** Those that are computed: a prompt once for its completions. */
  readonly computed: number;
  readonly drawn: CachedDraw;
}

export function shapeOf(config: ResolvedConfig, { train, eval: held }: Materials): StepShape {
  const { prompts, count, maxTokens } = config.rollout;
  const longestOf = (rows: readonly Prompted[]) => extremes(rows.map(({ ids }) => ids.length)).max;
  const prompt = longestOf(train);
  if (!imitates(config)) {
    const [sequences, longest] = [prompts * count, prompt + maxTokens];
    const drawn = { prompts, count, promptTokens: prompt, maxTokens };
    return { sequences, longest, tokens: sequences * longest, computed: prompts * (prompt + count * maxTokens), drawn };
  }
  const lengths = train.map(({ imitations }) =>
    imitations!.map(({ prompt: read, ids }) => read.ids.length + ids.length),
  );
  const longest = extremes(lengths.flat()).max;
  const tokens = prompts * extremes(lengths.map(sum)).max;
  const drawn = {
    prompts: Math.min(held.length, PROMPTS_A_CALL),
    count: 1,
    promptTokens: held.length === 0 ? 0 : longestOf(held),
    maxTokens,
  };
  return {
    sequences: prompts * extremes(lengths.map((row) => row.length)).max,
    longest,
    tokens,
    computed: tokens,
    drawn,
  };
}

/** Weights of a teacher that is another model. */
async function externalBytes({ teacher }: ResolvedConfig): Promise<number> {
  if (teacher.kind !== "external") return 0;
  return weightBytes(await modelUnder(teacher.model));
}

/** Bytes by what they are for. */
export async function memoryOf(
  config: ResolvedConfig,
  policy: Policy,
  shape: StepShape,
): Promise<Record<string, number>> {
  const counts = parametersOf(policy);
  const trained = 4 * counts.trained;
  const under = counts.parameters - counts.trained;
  const width = ((await policy.heldType?.()) ?? "f32") === "f32" ? 4 : 2;
  // Of a model that is not trained; of one that is, what is copied before the first update.
  const [model, copy] = under > 0 ? [width * under, trained] : [width * counts.parameters, width * counts.parameters];
  const { kind } = config.teacher;
  const algorithm = ALGORITHMS[config.algorithm];
  return {
    weights: under > 0 ? model + trained : trained,
    gradient: trained,
    optimizer: 2 * trained,
    teacher: asksTeacher(config)
      ? { shared: 0, base: 0, external: await externalBytes(config), frozen: copy, periodic: trained, ema: trained }[
          kind
        ]
      : 0,
    reference: algorithm.objective(config).klCoef > 0 ? copy : 0,
    ...(policy.cacheBytes !== undefined && {
      keyValueCache: policy.cacheBytes(shape.drawn) * timesKept(config, policy, shape),
    }),
    ...activationsOf(config, policy, shape),
  };
}

/** Of conversations all stay in the cache until the last of them has ended, also those that are not drawn at once. */
function timesKept({ environment }: ResolvedConfig, { maxSequences }: Policy, { drawn }: StepShape): number {
  if (environment === null || maxSequences === undefined) return 1;
  return Math.max(1, (drawn.prompts * drawn.count) / maxSequences);
}

/** A chunk of logits, of a vocabulary of any size (docs/engine.md, "Memory"). */
const LOGIT_BYTES = 2 ** 26;

/** What the largest pass of an update keeps for its way back; nothing where the policy cannot tell. */
function activationsOf(
  config: ResolvedConfig,
  policy: Policy,
  { computed, longest }: StepShape,
): { activations?: number } {
  if (policy.activationBytes === undefined) return {};
  const pass = Math.min(computed, config.update.microbatchTokens, policy.batchTokens ?? computed);
  const tokens = Math.max(pass, longest);
  const logits = Math.min(LOGIT_BYTES, 4 * tokens * policy.vocabSize);
  const student = policy.activationBytes(tokens, true) + logits;
  if (!comparesDistributions(config)) return { activations: student };
  // The teacher's pass lies beside the student's, but where the two are one model.
  const teacher = config.teacher.kind === "shared" ? 0 : policy.activationBytes(tokens, false);
  return { activations: student + teacher + logits };
}
