import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import { readTextFiles } from "../policy/text-files.js";
import { requireTokenizer, type Tokenizer, tokensBeyond } from "../policy/tokenizer.js";
import { type ChatTemplate, chatTemplateIn } from "../prompt/chat-template.js";
import { demonstration } from "../prompt/demonstration.js";
import { createPrivilegedBlock, type PrivilegedBlock } from "../prompt/privileged.js";
import { createPrompter, type Prompter } from "../prompt/prompter.js";
import { replyImitation, turnImitations } from "../prompt/turns.js";
import { createVerifier } from "../verifiers/registry.js";
import { startVerifier } from "../verifiers/start.js";
import type { Verifier } from "../verifiers/verifier.js";
import { imitates } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import type { Talk } from "./conversation.js";
import { type Dataset, type Example, loadDataset, settleProblems } from "./data/dataset.js";
import type { FieldMap } from "./data/fields.js";
import { giveUpAll, releasing } from "./durable.js";
import { createLeakDetector, type LeakDetector } from "./metrics.js";
import type { Prompted } from "./rollout.js";
import type { RewardSetting, WeightedReward } from "./settings.js";
import { extremes } from "./statistics.js";
import { offering, startTalk } from "./talk.js";
import { checkTeacherVocabulary } from "./teacher-vocabulary.js";

/** What a run needs besides weights. Made once, changed never. */
export interface Materials {
  readonly tokenizer: Tokenizer;
  readonly prompter: Prompter;
  readonly block: PrivilegedBlock;
  readonly verifier: Verifier;
  /** Who the model talks to; undefined: it speaks once. */
  readonly talk: Talk | undefined;
  readonly leaks: LeakDetector;
  readonly train: readonly Prompted[];
  readonly eval: readonly Prompted[];
  /** Which columns the first file of each kind has for what; null: none was read. */
  readonly columns: { readonly train: FieldMap | null; readonly eval: FieldMap | null };
  /** Rows left out because they do not fit. */
  readonly skipped: { readonly train: number; readonly eval: number };
}

const isList = (reward: RewardSetting): reward is readonly WeightedReward[] => Array.isArray(reward);

/** One verifier from the `reward` setting: a weighted sum where it is a list. */
export function createReward(reward: RewardSetting): Verifier {
  try {
    return createVerifier(isList(reward) ? { type: "sum", parts: reward } : reward);
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    throw new RlsdError("ERR_RLSD_CONFIG", `"reward": ${error.message}`, { cause: error });
  }
}

/** The prompt of an example; throws where it cannot be asked of this model for `maxTokens` more. */
export function prompted(example: Example, prompter: Prompter, maxLength: number, maxTokens = 1): Prompted {
  prompter.checkTools(example.messages, example.tools);
  const { text, ids } = prompter.prompt(example.messages, example.tools);
  const room = maxLength - maxTokens;
  if (room < 1) {
    throw new RlsdError(
      "ERR_RLSD_PROMPT",
      `"rollout.maxTokens" leaves no room for a prompt: lower it by ${1 - room} or more`,
    );
  }
  if (ids.length > room) {
    const mend = maxTokens > 1 ? 'shorten it or lower "rollout.maxTokens"' : "shorten it";
    const message = `the prompt has ${ids.length} tokens, but the model's length leaves room for ${room}: ${mend}`;
    throw new RlsdError("ERR_RLSD_PROMPT", message);
  }
  return { example, text, ids };
}

type SftSettings = ResolvedConfig["sft"];
type Reader = Pick<Policy, "maxLength" | "endTokenIds">;

function imitationsOf(prompt: Prompted, prompter: Prompter, { endTokenIds = [] }: Reader, turns: SftSettings["turns"]) {
  const { messages, tools, reply } = prompt.example;
  const replies = reply === null ? [] : [reply];
  if (reply?.tool_calls !== undefined) prompter.checkTools([...messages, reply], tools);
  if (turns === "all") return turnImitations(prompter, { messages: [...messages, ...replies], tools }, endTokenIds);
  return replies.map((one) => {
    const shown = demonstration(prompter, prompt, { messages, tools, reply: one }, endTokenIds);
    return replyImitation({ text: prompt.text, ids: prompt.ids }, shown);
  });
}

/** That prompt with what its row itself answers; throws where that is nothing, or where a sequence is too long. */
function demonstrated(prompt: Prompted, prompter: Prompter, policy: Reader, { turns }: SftSettings): Prompted {
  const imitations = imitationsOf(prompt, prompter, policy, turns);
  if (imitations.length === 0) {
    const message =
      "there is no trace to learn: name its column (--set data.fields.trace=COLUMN), or leave the row out";
    throw new RlsdError("ERR_RLSD_PROMPT", message);
  }
  const length = extremes(imitations.map((imitation) => imitation.prompt.ids.length + imitation.ids.length)).max;
  if (length > policy.maxLength) {
    const message = `prompt and trace have ${length} tokens, but the model reads ${policy.maxLength}: shorten them`;
    throw new RlsdError("ERR_RLSD_PROMPT", message);
  }
  return { ...prompt, imitations };
}

/** That prompt as a held-out one, whose trace is compared with where there is one that fits. */
function comparable(prompt: Prompted, prompter: Prompter, policy: Policy, sft: SftSettings): Prompted {
  if (prompt.example.reply === null && sft.turns === "last") return prompt;
  try {
    return demonstrated(prompt, prompter, policy, sft);
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    return prompt;
  }
}

export interface TextParts {
  readonly tokenizer: Tokenizer;
  readonly prompter: Prompter;
}

/** A vocabulary that the tokenizer outgrows would make ids without an embedding. */
function checkVocabulary(vocabSize: number, tokenizer: Tokenizer, model: string): void {
  if (tokenizer.size <= vocabSize) return;
  throw new RlsdError(
    "ERR_RLSD_MODEL",
    `${model}: the tokenizer has ${tokenizer.size} tokens but the model only ${vocabSize}: they do not belong together.`,
  );
}

/** What the model has no embedding for may stand in a text, as plain text, but a conversation cannot be made of it. */
function checkTemplate(
  beyond: readonly { readonly content: string; readonly id: number }[],
  template: ChatTemplate | undefined,
  { model, vocabSize }: { readonly model: string; readonly vocabSize: number },
): void {
  const written = beyond.find(({ content }) => template?.source.includes(content));
  if (written === undefined) return;
  const { content, id } = written;
  const mend = "give the model embeddings for it (resize_token_embeddings), or take the files that it was trained with";
  throw new RlsdError(
    "ERR_RLSD_MODEL",
    `${model}: its chat template writes ${content}, token ${id}, but the model has ${vocabSize} tokens alone: ${mend}`,
  );
}

/** Tokenizer and chat template of a model's folder, or of adapters with what they leave to their model, `base` or as they say. */
export async function loadTextParts(
  model: string,
  { vocabSize }: Pick<Policy, "vocabSize">,
  templateVariables: Readonly<Record<string, unknown>> = {},
  base?: string,
): Promise<TextParts> {
  const { files, directory } = await readTextFiles(model, base);
  const tokenizer = requireTokenizer(files, directory, vocabSize);
  checkVocabulary(vocabSize, tokenizer, model);
  const template = chatTemplateIn(files, directory);
  checkTemplate(tokensBeyond(tokenizer), template, { model, vocabSize });
  return { tokenizer, prompter: createPrompter(tokenizer, template, templateVariables) };
}

/** Reads and checks one list of files; every row is judged fit, or named with its place, before anything is trained. */
export async function loadPrompts(
  what: string,
  files: readonly string[],
  config: {
    readonly data: Pick<ResolvedConfig["data"], "fields" | "system" | "template" | "invalid">;
    readonly rollout: Pick<ResolvedConfig["rollout"], "maxTokens">;
  },
  o: {
    readonly prompter: Prompter;
    readonly verifier: Pick<Verifier, "check" | "answerOf">;
    readonly maxLength: number;
    readonly limit?: number;
    /** Who answers, and what may be called. */
    readonly talk?: Talk | undefined;
    /** The rows' traces are what is learned. */
    readonly imitated?: boolean;
    /** What becomes of a prompt; throws where its row does not fit. */
    readonly finish?: (prompt: Prompted) => Prompted;
  },
): Promise<{ prompts: Prompted[]; skipped: number; data: Dataset }> {
  const prompts: Prompted[] = [];
  const data = await loadDataset(files, {
    fields: config.data.fields,
    system: config.data.system,
    template: config.data.template,
    limit: o.limit ?? 0,
    imitated: o.imitated ?? false,
    answerOf: (row) => o.verifier.answerOf?.(row),
    check: (example) => {
      o.verifier.check?.(example.row);
      const prompt = prompted(offering(example, o.talk), o.prompter, o.maxLength, config.rollout.maxTokens);
      prompts.push(o.finish === undefined ? prompt : o.finish(prompt));
    },
  });
  return { prompts, skipped: settleProblems(what, data, config.data.invalid), data };
}

/** Rows to learn by their traces: nothing is drawn behind their prompts, and no verifier has to know them. */
const loadDemonstrations = (config: ResolvedConfig, prompter: Prompter, policy: Policy, talk: Talk | undefined) =>
  loadPrompts(
    "data.train",
    config.data.train,
    { ...config, rollout: { maxTokens: 1 } },
    {
      prompter,
      talk,
      verifier: {},
      maxLength: policy.maxLength,
      imitated: true,
      finish: (prompt) => demonstrated(prompt, prompter, policy, config.sft),
    },
  );

/** Held-out prompts that are training prompts as well, word for word: their accuracy says nothing of new ones. */
export function heldOutInTraining({ train, eval: held }: Pick<Materials, "train" | "eval">): number {
  const trained = new Set(train.map(({ text }) => text));
  return held.filter(({ text }) => trained.has(text)).length;
}

/** That, in words. */
export const heldOutText = (o: {
  readonly heldOutInTraining: number;
  readonly rows: { readonly eval: number };
}): string =>
  `${o.heldOutInTraining} of ${o.rows.eval} held-out prompts are training prompts too: accuracy on them says nothing of new ones`;

/** All rows of a run, checked. */
async function loadRows(
  config: ResolvedConfig,
  policy: Policy,
  { prompter, verifier, talk }: Pick<Materials, "prompter" | "verifier" | "talk">,
): Promise<Pick<Materials, "train" | "eval" | "columns" | "skipped">> {
  const imitated = imitates(config);
  const parts = { prompter, verifier, talk, maxLength: policy.maxLength, imitated };
  const train = await (imitated
    ? loadDemonstrations(config, prompter, policy, talk)
    : loadPrompts("data.train", config.data.train, config, parts));
  const heldParts = {
    ...parts,
    limit: config.eval.limit,
    ...(imitated && { finish: (prompt: Prompted) => comparable(prompt, prompter, policy, config.sft) }),
  };
  const held =
    config.data.eval.length === 0
      ? { prompts: [], skipped: 0, data: undefined }
      : await loadPrompts("data.eval", config.data.eval, config, heldParts);
  return {
    train: train.prompts,
    eval: held.prompts,
    columns: { train: train.data.fields, eval: held.data?.fields ?? null },
    skipped: { train: train.skipped, eval: held.skipped },
  };
}

/** Whoever judges and whoever answers is needed no more. */
export const disposeMaterials = ({ verifier, talk }: Pick<Materials, "verifier" | "talk">): Promise<void> =>
  giveUpAll(
    () => verifier.dispose?.(),
    () => talk?.environment.dispose(),
  );

/**
 * Everything but weights, checked. Nothing is written. A verifier or an environment that cannot start, or not before `signal`, is
 * disposed of.
 *
 * @param model where tokenizer and chat template are
 */
export async function prepare(
  config: ResolvedConfig,
  policy: Policy,
  signal?: AbortSignal,
  model = config.model,
): Promise<Materials> {
  const block = createPrivilegedBlock(config.privileged.template);
  const text = await loadTextParts(model, policy, config.data.templateVariables);
  await checkTeacherVocabulary({ ...config, model });
  const verifier = createReward(config.reward);
  // What may be called is a part of every prompt.
  const talk = await startTalk(config, { ...text, policy }, signal);
  return releasing(
    () => disposeMaterials({ verifier, talk }),
    async () => {
      const rows = await loadRows(config, policy, { prompter: text.prompter, verifier, talk });
      await startVerifier(verifier, signal);
      return { ...text, block, verifier, talk, leaks: createLeakDetector(config.leak.patterns), ...rows };
    },
  );
}
