import type { Policy } from "../policy/policy.js";
import { createQuestionTemplate } from "../prompt/question.js";
import type { Message } from "../verifiers/verifier.js";
import { merge } from "./config-file.js";
import { complete, type Talk } from "./conversation.js";
import { withSystem } from "./data/dataset.js";
import { giveUpAll, releasing } from "./durable.js";
import { checkNeeded } from "./given-checks.js";
import { loadPrompts, prompted, type TextParts } from "./prepare.js";
import { hashSeed } from "./random.js";
import { loadAsked, type ModelSource, withModel } from "./resolve-model.js";
import { PROMPTS_A_CALL, type Prompted, type Rollout, type RolloutOptions } from "./rollout.js";
import { type Given, partOf, resolveSettings, type Settings } from "./schema.js";
import { trainSchema } from "./settings.js";
import { isStored, offering, startTalk } from "./talk.js";

const { fields, system, template, templateVariables, invalid } = trainSchema.data;
const { topK, topP, minP, maxTokens, turns, stopStrings } = trainSchema.rollout;

/** Of a run's settings, those that say how its model is asked. */
const askSchema = {
  seed: trainSchema.seed,
  matmulType: trainSchema.matmulType,
  maxLength: trainSchema.maxLength,
  data: { fields, system, template, templateVariables, invalid },
  rollout: { topK, topP, minP, maxTokens, turns, stopStrings },
  environment: trainSchema.environment,
};

export type AskSettings = Given<typeof askSchema>;

/** A model, and how it is asked. */
export interface Asked extends TextParts {
  readonly policy: Policy;
  readonly settings: Settings<typeof askSchema>;
  /** Who it talks to; undefined: it answers at once. */
  readonly talk: Talk | undefined;
}

/** The model and who it talks to are needed no more. */
export const disposeAsked = ({ policy, talk }: Asked): Promise<void> =>
  giveUpAll(
    () => talk?.environment.dispose(),
    () => policy.dispose(),
  );

/**
 * A run (its best checkpoint), a checkpoint or a model, to be asked.
 *
 * @param given settings that win over those of the run
 */
export async function openAsked(directory: string, given: AskSettings = {}, source: ModelSource = {}): Promise<Asked> {
  return withModel(directory, source, async (found) => {
    const own = partOf(askSchema, found.settings) as Record<string, unknown>;
    checkNeeded(merge(own, given));
    // Its model is asked without it.
    if (!isStored(own.environment)) own.environment = null;
    const settings = resolveSettings(askSchema, merge(own, given));
    const { policy, text } = await loadAsked(found, settings, source);
    return releasing(
      () => policy.dispose(),
      async () => {
        const talk = await startTalk(settings, { ...text, policy });
        return { ...text, policy, settings, talk };
      },
    );
  });
}

/** A conversation as the model reads it; ERR_RLSD_PROMPT where it leaves no room for an answer. */
export function promptOf(
  { settings, prompter, policy, talk }: Asked,
  messages: readonly Message[],
  id: string,
): Prompted {
  const rest = { where: id, answer: null, trace: null, reply: null, tools: [], document: null, row: {} };
  const { system, template } = settings.data;
  const given = withSystem(messages, system);
  const asked = template === null ? given : createQuestionTemplate(template).apply(given, {}, []);
  const example = { id, messages: asked, given, ...rest };
  return prompted(offering(example, talk), prompter, policy.maxLength);
}

/** The prompts of files with rows as for training, so many at most (0: all), and how many rows were left out. */
export async function promptsIn(
  { settings, prompter, policy, talk }: Asked,
  files: readonly string[],
  limit: number,
): Promise<{ readonly prompts: readonly Prompted[]; readonly skipped: number }> {
  // An answer is cut where the model's length ends: a prompt needs room for one token only.
  const config = { data: settings.data, rollout: { maxTokens: 1 } };
  const parts = { prompter, talk, verifier: {}, maxLength: policy.maxLength, limit };
  return loadPrompts("the data", files, config, parts);
}

export interface AskOptions {
  /** Completions of each prompt. */
  readonly count: number;
  /** 0: greedy. */
  readonly temperature: number;
  /** Prompts that were asked before: what is drawn depends on the seed and on a prompt's place. Default 0. */
  readonly before?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** As each token is drawn. */
  readonly onToken?: ((tokenId: number) => void) | undefined;
  /** The caller has called the policy's `keepPrefixes`, for calls to come as well. */
  readonly keepsPrefixes?: boolean | undefined;
  /** As the environment answers, before the model reads it. */
  readonly onReply?: ((replies: readonly Message[]) => void) | undefined;
}

/** Completions of every prompt, in order, as many prompts at once as are drawn together. */
export async function* answers(asked: Asked, prompts: readonly Prompted[], o: AskOptions): AsyncGenerator<Rollout[]> {
  const { policy, tokenizer, settings } = asked;
  const talk = asked.talk && { ...asked.talk, keptByCaller: o.keepsPrefixes };
  const { count, temperature, signal, onToken, onReply, before = 0 } = o;
  const room = ({ ids }: Prompted) => Math.min(settings.rollout.maxTokens, policy.maxLength - ids.length);
  let end = 0;
  for (let start = 0; start < prompts.length; start = end) {
    const most = room(prompts[start]!);
    do end++;
    while (end < prompts.length && end - start < PROMPTS_A_CALL && room(prompts[end]!) === most);
    const drawn: RolloutOptions = {
      sampling: { ...settings.rollout, maxTokens: most },
      count,
      temperature,
      seed: hashSeed(settings.seed, "generate", before + start),
      firstGroup: start,
      signal,
      onToken: onToken && ((_prompt, _completion, tokenId) => onToken(tokenId)),
      onReply: onReply && ((_, replies) => onReply(replies)),
    };
    yield await complete(policy, tokenizer, prompts.slice(start, end), drawn, talk);
  }
}
