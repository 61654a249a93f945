import { show } from "../check.js";
import { messageOf } from "../errors.js";
import { scaleFault } from "../policy/lora.js";
import { ALGORITHMS, imitates } from "./algorithms.js";
import type { ResolvedConfig, TrainConfig } from "./config.js";
import { fail } from "./config-error.js";
import { recorded, wasCode } from "./run-folder.js";

/** Sums in gates in sums, and lists of them, are at most so deep. */
const DEEPEST = 32;

/** Whether an environment's rewards are asked for: alone, in what another one is made of, in a list. */
function asksEnvironment(reward: unknown, depth = 0): boolean {
  if (reward === "environment") return true;
  if (typeof reward !== "object" || reward === null) return false;
  if (depth > DEEPEST) fail(`"reward" has parts in parts, more than ${DEEPEST} deep: expected fewer.`);
  const inside = (part: unknown) => asksEnvironment(part, depth + 1);
  if (Array.isArray(reward)) return reward.some(inside);
  const { type, parts, verifier, gate, cases, otherwise } = reward as Readonly<Record<string, unknown>>;
  const chosen = type === "switch" ? [...Object.values(Object(cases)), otherwise] : [];
  return type === "environment" || [parts, verifier, gate, ...chosen].some(inside);
}

/** A run's folder names what was code, and cannot keep it. */
function checkKept({ environment, reward }: ResolvedConfig): void {
  const tools: object = Object((Object(environment) as { readonly tools?: unknown }).tools);
  const calls = Object.values(tools).map((tool) => (Object(tool) as { readonly call?: unknown }).call);
  const verifiers = Array.isArray(reward) ? reward.map((part) => Object(part).verifier) : [reward];
  const again = "came from code, which a run does not keep: give it again from code, or set another.";
  if ([environment, ...calls].some(wasCode)) fail(`"environment" ${again}`);
  if (verifiers.some(wasCode)) fail(`"reward" ${again}`);
}

/** Settings of a run that may be code, and what is given to go on without what it had. */
const AGAIN = { environment: "null to go on without it", reward: "another to go on with" } as const;

/**
 * Who answers the model and who judges it: a run that goes on by settings that leave them out would silently have others.
 *
 * @param began settings that the run's folder has
 */
export function checkGivenAgain(
  given: Pick<TrainConfig, keyof typeof AGAIN>,
  config: ResolvedConfig,
  began: Readonly<Record<string, unknown>>,
): void {
  for (const name of ["environment", "reward"] as const) {
    const had = began[name];
    // Earlier versions had no such setting.
    if (given[name] !== undefined || had === undefined) continue;
    if (JSON.stringify({ had }) === recorded({ had: config[name] })) continue;
    fail(`"${name}" of this run was ${show(had)}, and is not given: give it again, or ${AGAIN[name]}.`);
  }
}

function checkEnvironment({ environment, reward }: ResolvedConfig): void {
  if (!asksEnvironment(reward)) return;
  if (environment === null) fail('"reward" is what an environment gives, but "environment" names none.');
  if (Object(environment).type === "tools") {
    fail('"reward" is what an environment gives, but tools give none: name a verifier of the answer.');
  }
}

/** Each update of a pass needs a sequence of its own. */
function checkMinibatches(config: ResolvedConfig): void {
  const { rollout, sft, update } = config;
  const traces = imitates(config);
  // A conversation may have any number of turns, of which each may be a sequence.
  if (traces && sft.turns === "all") return;
  const most = traces ? rollout.prompts : rollout.prompts * rollout.count;
  if (update.minibatches <= most) return;
  const what = traces ? 'traces ("rollout.prompts")' : 'completions ("rollout.prompts" times "rollout.count")';
  fail(`"update.minibatches" is ${update.minibatches}, but a step has only ${most} ${what}.`);
}

/** Settings that are each right and together wrong: ERR_RLSD_CONFIG. */
export function checkTogether(config: ResolvedConfig): void {
  const { rollout, advantage, eval: evaluation, teacher, overlong, optimizer, stop } = config;
  if (config.model === "") fail('Expected a model folder for "model" but none was given.');
  if (config.data.train.length === 0) fail('Expected at least one file for "data.train" but none was given.');
  const { distills } = ALGORITHMS[config.algorithm];
  checkKept(config);
  if (rollout.count < 2 && !imitates(config) && (distills === undefined || distills.rewarded)) {
    fail(
      `"rollout.count" is ${rollout.count}, but a group of one has no baseline ("advantage.baseline" is ${advantage.baseline}): use at least 2.`,
    );
  }
  checkMinibatches(config);
  const tooLarge = evaluation.passAt.find((k) => evaluation.samples > 0 && k > evaluation.samples);
  if (tooLarge !== undefined) {
    fail(`"eval.passAt" has ${tooLarge}, but "eval.samples" draws only ${evaluation.samples} completions.`);
  }
  if (teacher.kind === "external" && teacher.model === "") {
    fail('"teacher.kind" is external: expected a folder for "teacher.model".');
  }
  const { rank, alpha, rankStabilized } = config.lora;
  const scale = rank > 0 && alpha !== null ? scaleFault({ rank, alpha, rankStabilized }) : undefined;
  if (scale !== undefined) fail(`"lora": ${scale}.`);
  if (config.lora.targets.length === 0) fail('Expected at least one matrix for "lora.targets".');
  if (overlong.mode === "penalty" && overlong.buffer > rollout.maxTokens) {
    fail(`"overlong.buffer" (${overlong.buffer}) is larger than "rollout.maxTokens" (${rollout.maxTokens}).`);
  }
  if ((stop.patience > 0 || stop.target !== null) && config.data.eval.length === 0) {
    fail(`"stop.${stop.patience > 0 ? "patience" : "target"}" waits for evaluations, but "data.eval" names no file.`);
  }
  checkEnvironment(config);
  const { messages, prompt } = config.data.fields;
  if (messages && prompt) {
    fail(
      `"data.fields.messages" (${messages}) and "data.fields.prompt" (${prompt}) both say where the question is: leave one of them out.`,
    );
  }
  if (optimizer.betas.length !== 2) fail('Expected two numbers for "optimizer.betas".');
  if ((config.span.open === "") !== (config.span.close === "")) {
    fail('"span.open" and "span.close" go together: give both or neither.');
  }
  for (const pattern of config.leak.patterns) {
    try {
      new RegExp(pattern, "i");
    } catch (error) {
      fail(`"leak.patterns": ${messageOf(error)}`);
    }
  }
}
