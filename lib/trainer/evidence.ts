import { invalid, refusal } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import { type PrivilegedBlock, type PrivilegedPrompt, privilegedPrompt } from "../prompt/privileged.js";
import type { Prompter } from "../prompt/prompter.js";
import { asksTeacher } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import type { Example } from "./data/dataset.js";
import { type Judged, saidIn } from "./judge.js";
import type { Prompted, Rollout } from "./rollout.js";
import { succeededBy } from "./success.js";

/** What a privileged text may be made from. */
export interface PrivilegedInput {
  readonly example: Example;
  readonly rollout: Rollout;
  readonly verdict: Judged;
  /** The group, this rollout included. */
  readonly siblings: readonly { readonly rollout: Rollout; readonly verdict: Judged }[];
}

/** Returns, at once, the text that the teacher sees for this sample; null or undefined: what `privileged.source` says. */
export type PrivilegedFunction = (input: PrivilegedInput) => string | null | undefined;

/** The teacher's word on one rollout. */
export interface Evidence {
  readonly privileged: string;
  readonly truncated: boolean;
  /** One a token. */
  readonly teacherLogProbs: Float32Array;
  /** With `contrast`; the teacher's own, which is no evidence, where the group has no other rejected completion. */
  readonly contrastLogProbs?: Float32Array;
}

export interface EvidenceResult {
  /** One a rollout; undefined: the teacher was not asked. */
  readonly evidence: readonly (Evidence | undefined)[];
  /** Rollouts with a gradient but no privileged text, or no room for it. */
  readonly withoutPrivilege: number;
  /** With `contrast`: rollouts that had nothing to be contrasted with. */
  readonly withoutContrast: number;
}

export interface EvidenceOptions {
  readonly config: ResolvedConfig;
  readonly block: PrivilegedBlock;
  readonly prompter: Prompter;
  readonly privileged?: PrivilegedFunction | undefined;
  readonly signal?: AbortSignal | undefined;
}

type Source = ResolvedConfig["privileged"]["source"];

/** The privileged text that a row itself brings; undefined: `source` makes it from completions. */
export function rowText(example: Example, source: Source): string | null | undefined {
  switch (source) {
    case "auto":
      return example.document ?? example.trace ?? example.answer;
    case "answer":
    case "trace":
    case "document":
      return example[source];
    case "none":
      return null;
    case "feedback":
    case "sibling":
      return undefined;
  }
}

/** How many rows bring none; null: no step asks for it, or it is not the rows that bring it. */
export function rowsWithoutPrivilege(
  prompts: readonly Prompted[],
  config: ResolvedConfig,
  own: PrivilegedFunction | undefined,
): number | null {
  const { source } = config.privileged;
  if (own !== undefined || !asksTeacher(config)) return null;
  const texts = prompts.map(({ example }) => rowText(example, source));
  return texts.includes(undefined) ? null : texts.filter((text) => text === null).length;
}

/** What the caller's own function says of a sample; null: nothing. */
function ownText(own: PrivilegedFunction, input: PrivilegedInput): string | null {
  const { where } = input.example;
  let text: unknown;
  try {
    text = own(input);
  } catch (error) {
    const message = `hooks.privileged failed on a completion of ${where}: ${error instanceof Error ? error.message : String(error)}`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message, { cause: error });
  }
  if (text === undefined || text === null || typeof text === "string") return text ?? null;
  const expected = "a text, null or undefined";
  if (!(text instanceof Promise)) throw invalid(expected, `what hooks.privileged returns for ${where}`, text);
  // It is refused here, whatever it comes to.
  text.catch(() => {});
  const mend = "Look up what it needs before the training.";
  throw refusal(expected, `what hooks.privileged returns for ${where}`, "a promise", mend);
}

type Judging = Pick<ResolvedConfig, "privileged" | "reward">;

/** The privileged text that the settings ask for; null: this sample has none. */
export function privilegedText(input: PrivilegedInput, config: Judging): string | null {
  const { example, rollout, verdict, siblings } = input;
  const { source } = config.privileged;
  switch (source) {
    case "feedback": {
      const feedback = saidIn(verdict, "feedback");
      return typeof feedback === "string" ? feedback : null;
    }
    case "sibling": {
      const succeeded = succeededBy(config);
      const good = siblings.find((s) => s.rollout !== rollout && succeeded(s.verdict));
      return good?.rollout.text ?? null;
    }
    default:
      return rowText(example, source) ?? null;
  }
}

/**
 * What the contrast teacher is told: the group's worst rejected completion, or what it gave as its answer when answers
 * are what the teacher sees. Never the completion's own text.
 */
export function contrastText(input: PrivilegedInput, config: Judging): string | null {
  const succeeded = succeededBy(config);
  const rejected = input.siblings.filter(
    ({ rollout, verdict }) => rollout !== input.rollout && verdict.reward !== null && !succeeded(verdict),
  );
  const worst = rejected.reduce<(typeof rejected)[number] | undefined>(
    (a, b) => (a === undefined || b.verdict.reward! < a.verdict.reward! ? b : a),
    undefined,
  );
  if (worst === undefined) return null;
  const said = saidIn(worst.verdict, "extracted");
  const answered = config.privileged.source === "answer" && (typeof said === "string" || typeof said === "number");
  return answered ? String(said) : worst.rollout.text;
}

interface Asked {
  readonly index: number;
  readonly prompt: PrivilegedPrompt;
}

type Member = PrivilegedInput["siblings"][number];

function byGroup(rollouts: readonly Rollout[], verdicts: readonly Judged[]): Map<number, Member[]> {
  const groups = new Map<number, Member[]>();
  for (const [i, rollout] of rollouts.entries()) {
    const members = groups.get(rollout.group) ?? [];
    members.push({ rollout, verdict: verdicts[i]! });
    groups.set(rollout.group, members);
  }
  return groups;
}

/**
 * Makes teacher's prompts; undefined: there is no privileged text, or no room for it. The completions of a group mostly
 * share theirs, so a prompt that was not cut is kept for the next that asks for the same.
 */
function promptMaker(maxLength: number, o: EvidenceOptions) {
  const made = new Map<Example, Map<string, PrivilegedPrompt>>();
  return (text: string | null, rollout: Rollout): PrivilegedPrompt | undefined => {
    if (text === null || text === "") return undefined;
    const { example } = rollout.prompt;
    const budget = maxLength - rollout.tokenIds.length;
    const known = made.get(example)?.get(text);
    if (known !== undefined && known.ids.length <= budget) return known;
    const { messages, tools, answer, row } = example;
    const limits = { budget, maxTokens: o.config.privileged.maxTokens };
    const prompt = privilegedPrompt({ messages, tools, privileged: text, answer, row }, o.block, o.prompter, limits);
    if (prompt !== undefined && !prompt.truncated) {
      made.set(example, (made.get(example) ?? new Map<string, PrivilegedPrompt>()).set(text, prompt));
    }
    return prompt;
  };
}

async function score(
  teacher: Policy,
  asked: readonly Asked[],
  rollouts: readonly Rollout[],
  o: EvidenceOptions,
): Promise<Map<number, Float32Array>> {
  if (asked.length === 0) return new Map();
  const requests = asked.map(({ index, prompt }) => ({ prompt: prompt.ids, completion: rollouts[index]!.tokenIds }));
  const scores = await teacher.score(requests, {
    temperature: o.config.rollout.temperature,
    ...(o.signal && { signal: o.signal }),
  });
  return new Map(asked.map(({ index }, k) => [index, scores[k]!]));
}

/** Asks the teacher about every rollout whose advantage is not 0 and that has privileged text; about no other. */
export async function gatherEvidence(
  teacher: Policy,
  rollouts: readonly Rollout[],
  verdicts: readonly Judged[],
  advantages: Float32Array,
  o: EvidenceOptions,
): Promise<EvidenceResult> {
  const settings = o.config.privileged;
  const groups = byGroup(rollouts, verdicts);
  const promptFor = promptMaker(teacher.maxLength, o);
  const asked: Asked[] = [];
  const contrasted: Asked[] = [];
  let withoutPrivilege = 0;
  let withoutContrast = 0;
  for (const [index, rollout] of rollouts.entries()) {
    if (advantages[index] === 0) continue;
    const siblings = groups.get(rollout.group)!;
    const input = { example: rollout.prompt.example, rollout, verdict: verdicts[index]!, siblings };
    const text = (o.privileged && ownText(o.privileged, input)) ?? privilegedText(input, o.config);
    const prompt = promptFor(text, rollout);
    if (prompt === undefined) {
      withoutPrivilege++;
      continue;
    }
    asked.push({ index, prompt });
    if (!settings.contrast) continue;
    const wrong = promptFor(contrastText(input, o.config), rollout);
    if (wrong === undefined) withoutContrast++;
    else contrasted.push({ index, prompt: wrong });
  }
  const right = await score(teacher, asked, rollouts, o);
  const wrong = await score(teacher, contrasted, rollouts, o);
  const evidence = new Array<Evidence | undefined>(rollouts.length).fill(undefined);
  for (const { index, prompt } of asked) {
    const contrastLogProbs = settings.contrast ? (wrong.get(index) ?? right.get(index)) : undefined;
    evidence[index] = {
      privileged: prompt.privileged,
      truncated: prompt.truncated,
      teacherLogProbs: right.get(index)!,
      ...(contrastLogProbs && { contrastLogProbs }),
    };
  }
  return { evidence, withoutPrivilege, withoutContrast };
}
