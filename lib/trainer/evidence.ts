import type { Policy } from "../policy/policy.js";
import { type PrivilegedBlock, type PrivilegedPrompt, privilegedPrompt } from "../prompt/privileged.js";
import type { Prompter } from "../prompt/prompter.js";
import { ALGORITHMS } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import type { Example } from "./data/dataset.js";
import type { Judged } from "./judge.js";
import {
  contrastText,
  ownText,
  type PrivilegedFunction,
  type PrivilegedInput,
  privilegedText,
} from "./privileged-text.js";
import type { Rollout } from "./rollout.js";

/** The teacher's word on one rollout. */
export interface Evidence {
  readonly privileged: string;
  readonly truncated: boolean;
  /** One a token. */
  readonly teacherLogProbs: Float32Array;
  /** With `contrast`; the teacher's own, which is no evidence, where the group has no other rejected completion. */
  readonly contrastLogProbs?: Float32Array;
}

/** What the teacher reads before each rollout. */
interface TeacherPrompts {
  /** One a rollout; undefined: the teacher is not asked. */
  readonly prompts: readonly (PrivilegedPrompt | undefined)[];
  /** With `contrast`: one a rollout; undefined: it has nothing to be contrasted with. */
  readonly contrasts: readonly (PrivilegedPrompt | undefined)[];
  /** Rollouts with a gradient but no privileged text, or no room for it. */
  readonly withoutPrivilege: number;
  /** With `contrast`: rollouts that had nothing to be contrasted with. */
  readonly withoutContrast: number;
}

export interface EvidenceResult extends TeacherPrompts {
  /** One a rollout; undefined: the teacher was not asked. */
  readonly evidence: readonly (Evidence | undefined)[];
}

interface EvidenceOptions {
  readonly config: ResolvedConfig;
  readonly block: PrivilegedBlock;
  readonly prompter: Prompter;
  readonly privileged?: PrivilegedFunction | undefined;
  readonly signal?: AbortSignal | undefined;
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

/** Another model reads what the student read. undefined: it reads no sequences as long as that. */
function ownPrompt({ prompt: { ids }, tokenIds }: Rollout, maxLength: number): PrivilegedPrompt | undefined {
  return ids.length + tokenIds.length > maxLength ? undefined : { ids, privileged: "", truncated: false };
}

/** The teacher's prompts before every rollout whose worth is not 0 and that has privileged text; before no other. */
export function teacherPrompts(
  { maxLength }: Pick<Policy, "maxLength">,
  rollouts: readonly Rollout[],
  verdicts: readonly Judged[],
  worth: Float32Array,
  o: EvidenceOptions,
): TeacherPrompts {
  const settings = o.config.privileged;
  const own = ALGORITHMS[o.config.algorithm].distills?.prompt === "own";
  const groups = byGroup(rollouts, verdicts);
  const promptFor = promptMaker(maxLength, o);
  const prompts = new Array<PrivilegedPrompt | undefined>(rollouts.length).fill(undefined);
  const contrasts = [...prompts];
  let [withoutPrivilege, withoutContrast] = [0, 0];
  for (const [index, rollout] of rollouts.entries()) {
    if (worth[index] === 0) continue;
    const siblings = groups.get(rollout.group)!;
    const input = { example: rollout.prompt.example, rollout, verdict: verdicts[index]!, siblings };
    const text = () => (o.privileged && ownText(o.privileged, input)) ?? privilegedText(input, o.config);
    prompts[index] = own ? ownPrompt(rollout, maxLength) : promptFor(text(), rollout);
    if (prompts[index] === undefined) withoutPrivilege++;
    else if (settings.contrast) {
      contrasts[index] = promptFor(contrastText(input, o.config), rollout);
      if (contrasts[index] === undefined) withoutContrast++;
    }
  }
  return { prompts, contrasts, withoutPrivilege, withoutContrast };
}

/** The teacher's log-probs of the rollouts' tokens after these prompts, one a rollout that has one. */
async function score(
  teacher: Policy,
  prompts: TeacherPrompts["prompts"],
  rollouts: readonly Rollout[],
  o: EvidenceOptions,
): Promise<(Float32Array | undefined)[]> {
  const asked = prompts.flatMap((prompt, index) => (prompt === undefined ? [] : [{ prompt, index }]));
  const out = new Array<Float32Array | undefined>(prompts.length).fill(undefined);
  if (asked.length === 0) return out;
  const requests = asked.map(({ index, prompt }) => ({ prompt: prompt.ids, completion: rollouts[index]!.tokenIds }));
  const scores = await teacher.score(requests, {
    temperature: o.config.rollout.temperature,
    ...(o.signal && { signal: o.signal }),
  });
  for (const [k, { index }] of asked.entries()) out[index] = scores[k];
  return out;
}

/** Asks the teacher about every rollout whose worth is not 0 and that has privileged text; about no other. */
export async function gatherEvidence(
  teacher: Policy,
  rollouts: readonly Rollout[],
  verdicts: readonly Judged[],
  worth: Float32Array,
  o: EvidenceOptions,
): Promise<EvidenceResult> {
  const asked = teacherPrompts(teacher, rollouts, verdicts, worth, o);
  const right = await score(teacher, asked.prompts, rollouts, o);
  const wrong = await score(teacher, asked.contrasts, rollouts, o);
  const evidence = asked.prompts.map((prompt, i) => {
    if (prompt === undefined) return undefined;
    const contrastLogProbs = o.config.privileged.contrast ? (wrong[i] ?? right[i]) : undefined;
    return {
      privileged: prompt.privileged,
      truncated: prompt.truncated,
      teacherLogProbs: right[i]!,
      ...(contrastLogProbs && { contrastLogProbs }),
    };
  });
  return { ...asked, evidence };
}
