/** How long a run will take, from a few tokens drawn by its model. */
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS, asksTeacher, imitates } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import type { Materials } from "./prepare.js";
import type { Prompted } from "./rollout.js";

/** Seconds. */
export interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** An estimate. */
export interface TimePlan {
  readonly step: TimeRange;
  /** 0: there is none. */
  readonly evaluation: TimeRange;
  /** All steps and evaluations. */
  readonly run: TimeRange;
}

/** Seconds that a drawing may take. */
const BUDGET = 2;
/** Below it a drawing is of one prompt's completions no longer but of a whole step's, and is done again. */
const QUICK = BUDGET / 8;
/** Drawings of a whole step, at most: their median is what no single delay has made. */
const ROUNDS = 5;
/** Tokens of each completion that are drawn. */
const TOKENS = 16;
/** Readings of a batch that its forward and backward pass cost, and one more where layers are computed again. */
const PASS = 3;
/** What so short a measurement may be off by, either way. */
const FACTOR = 2;
/** Share of the completions that are learned from, at least: groups whose rewards are alike teach nothing. */
const LEAST_TAUGHT = 0.5;

/** Seconds a token, and how many a completion had when the drawing stopped. */
interface Rates {
  readonly read: number;
  readonly draw: number;
  readonly length: number;
}

const tokensIn = (prompts: readonly Prompted[]): number => prompts.reduce((n, { ids }) => n + ids.length, 0);

/** Draws some tokens of each completion; undefined: the time was over before there was a second one. */
async function drawn(
  policy: Policy,
  prompts: readonly Prompted[],
  { rollout, seed }: ResolvedConfig,
  seconds: number,
): Promise<(Rates & { readonly seconds: number }) | undefined> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), 1000 * seconds);
  const { topK, topP, minP, stopStrings, count, temperature } = rollout;
  const began = performance.now();
  const seen = new Set<string>();
  let [first, last, tokens] = [0, 0, 0];
  try {
    await policy.generate(
      prompts.map(({ ids }) => ids),
      {
        temperature,
        ...(topK > 0 && { topK }),
        ...(topP < 1 && { topP }),
        ...(minP > 0 && { minP }),
        ...(stopStrings.length > 0 && { stopStrings }),
        count,
        seed,
        maxTokens: Math.min(TOKENS, rollout.maxTokens),
        signal: controller.signal,
        onToken(prompt, completion) {
          last = performance.now();
          if (tokens++ === 0) first = last;
          seen.add(`${prompt} ${completion}`);
        },
      },
    );
  } catch (error) {
    if (!controller.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
  // Each sequence has its first token from the prompt.
  const [more, whole] = [tokens - seen.size, seen.size > 0];
  if (!whole || (more === 0 && controller.signal.aborted)) return undefined;
  const read = (first - began) / 1000 / tokensIn(prompts);
  const draw = more === 0 ? read : (last - first) / 1000 / more;
  return { read, draw, length: tokens / seen.size, seconds: (performance.now() - began) / 1000 };
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Of one prompt's completions and, where these are there at once, of a whole step's. */
async function ratesOf(policy: Policy, { train }: Materials, config: ResolvedConfig): Promise<Rates | undefined> {
  const one = await drawn(policy, train.slice(0, 1), config, BUDGET);
  if (one === undefined || one.seconds > QUICK) return one;
  const rounds: Rates[] = [];
  const began = performance.now();
  while (rounds.length < ROUNDS) {
    const left = BUDGET - (performance.now() - began) / 1000;
    const round = left > 0 ? await drawn(policy, train.slice(0, config.rollout.prompts), config, left) : undefined;
    if (round === undefined) break;
    rounds.push(round);
  }
  if (rounds.length === 0) return one;
  const middle = (name: keyof Rates) => median(rounds.map((round) => round[name]));
  return { read: middle("read"), draw: middle("draw"), length: middle("length") };
}

/** Tokens of a step, on average of the rows. */
interface StepTokens {
  readonly prompts: number;
  /** Of the teacher's prompts. */
  readonly teacher: number;
  /** Of what is learned; undefined: what is drawn is. */
  readonly traces: number | undefined;
}

/** A step's seconds where completions have so many tokens and a share of them is learned from. */
function stepSeconds(config: ResolvedConfig, rates: Rates, tokens: StepTokens, length: number, taught: number): number {
  const { rollout, update } = config;
  const { klCoef, studentSource } = ALGORITHMS[config.algorithm].objective(config);
  const passes = update.epochs * (PASS + Number(update.recompute));
  if (tokens.traces !== undefined) return rates.read * passes * (tokens.prompts + tokens.traces);
  const completions = rollout.prompts * rollout.count * length;
  const old = update.epochs * update.minibatches > 1 || studentSource === "old";
  const scored = Number(old) + Number(klCoef > 0);
  const teacher = asksTeacher(config) ? tokens.teacher + completions : 0;
  const learned = (passes + scored) * (tokens.prompts + completions) + teacher;
  return rates.read * (tokens.prompts + taught * learned) + rates.draw * completions;
}

function evaluationSeconds(
  { eval: { samples } }: ResolvedConfig,
  rates: Rates,
  held: readonly Prompted[],
  length: number,
) {
  const prompts = (samples > 0 ? 2 : 1) * tokensIn(held);
  return rates.read * prompts + rates.draw * held.length * (1 + samples) * length;
}

/** How often a run evaluates. */
export function evaluationsOf({ steps, eval: { every, atStart } }: ResolvedConfig, held: number): number {
  if (held === 0) return 0;
  const within = every > 0 ? Math.floor(steps / every) : 0;
  const last = steps > 0 && (every === 0 || steps % every > 0) ? 1 : 0;
  return Number(atStart) + within + last;
}

/** Why a run's time is not estimated; undefined: it can be tried. */
function unknown(config: ResolvedConfig, { talk }: Materials, own: boolean): string | undefined {
  if (!own) return "the model is one of loadPolicy";
  if (talk !== undefined) return "the model's turns are answered by an environment";
  return asksTeacher(config) && config.teacher.kind === "external" ? "the teacher is another model" : undefined;
}

/**
 * From and to: completions as long as those that were drawn for this, at most 16 tokens, half of which are learned from; and all
 * of them at their limit and learned from. What verifiers take, checkpoints and the optimizer is not in it.
 *
 * @param o `own`: the policy is the engine's; `teacher`, `traces`: tokens of a row, on average
 */
export async function planTime(
  config: ResolvedConfig,
  policy: Policy,
  materials: Materials,
  o: { readonly own: boolean; readonly teacher: number; readonly traces: number },
): Promise<TimePlan | { readonly unknown: string }> {
  const why = unknown(config, materials, o.own);
  if (why !== undefined) return { unknown: why };
  const { train, eval: held } = materials;
  let rates: Rates | undefined;
  try {
    rates = await ratesOf(policy, materials, config);
  } catch (error) {
    if (error instanceof RlsdError) return { unknown: error.message };
    throw error;
  }
  if (rates === undefined) return { unknown: `one prompt and a token behind it take longer than ${BUDGET} s` };
  const rows = config.rollout.prompts;
  const tokens = {
    prompts: (rows * tokensIn(train)) / train.length,
    teacher: rows * o.teacher,
    traces: imitates(config) ? rows * o.traces : undefined,
  };
  const evaluations = evaluationsOf(config, held.length);
  const times = (length: number, taught: number, factor: number) => {
    const step = factor * stepSeconds(config, rates, tokens, length, taught);
    const evaluation = evaluations === 0 ? 0 : factor * evaluationSeconds(config, rates, held, length);
    return { step, evaluation, run: config.steps * step + evaluations * evaluation };
  };
  const least = times(rates.length, LEAST_TAUGHT, 1 / FACTOR);
  const most = times(config.rollout.maxTokens, 1, FACTOR);
  return {
    step: { from: least.step, to: most.step },
    evaluation: { from: least.evaluation, to: most.evaluation },
    run: { from: least.run, to: most.run },
  };
}
