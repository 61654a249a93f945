import { textOf } from "../check.js";
import { RlsdError } from "../errors.js";
import { withTexts } from "../exact-json.js";
import { toVerdict } from "../verifiers/function.js";
import type { Verdict, Verifier } from "../verifiers/verifier.js";
import type { ResolvedConfig } from "./config.js";
import type { Rollout } from "./rollout.js";
import type { Occasion, VerdictJournal } from "./verdict-journal.js";

/** A verdict, and the reward after the fine for length. */
export interface Judged extends Verdict {
  readonly detail: Record<string, unknown>;
  /** What the verifier gave, where the reward was fined. */
  readonly unfined?: number;
}

type Part = readonly [name: string, verdict: Partial<Judged>];

/** The verdicts that a verdict was made from, in their order: the parts of a sum, a gate and what stood behind it. */
export function partsOf({ detail }: Partial<Judged>): readonly Part[] {
  const isPart = (entry: [string, unknown]): entry is [string, Partial<Judged>] =>
    typeof entry[1] === "object" && entry[1] !== null && "reward" in entry[1];
  return typeof detail === "object" && detail !== null ? Object.entries(detail).filter(isPart) : [];
}

/** What a verdict's detail says under a name, or else the first of its parts that says it. */
export function saidIn(verdict: Partial<Judged>, name: string): unknown {
  const own = verdict.detail?.[name] ?? undefined;
  if (own !== undefined) return own;
  for (const [, part] of partsOf(verdict)) {
    const said = saidIn(part, name);
    if (said !== undefined) return said;
  }
  return undefined;
}

async function judgeOne(verifier: Verifier, rollout: Rollout, signal: AbortSignal): Promise<Judged> {
  const { example, text } = rollout.prompt;
  const { conversation } = rollout;
  const sample = {
    id: rollout.id,
    prompt: conversation?.prompt ?? text,
    messages: withTexts(example.messages),
    completion: rollout.text,
    raw: rollout.raw,
    finish: rollout.finish,
    row: example.row,
    ...(conversation && {
      turns: conversation.messages,
      environment: { reward: conversation.reward, detail: conversation.detail },
    }),
  };
  try {
    const said = await verifier.verify(sample, signal);
    // What an interrupted verifier says is no verdict, and must not be remembered as one.
    signal.throwIfAborted();
    const { detail = {}, ...verdict } = toVerdict(said);
    return { ...verdict, detail };
  } catch (error) {
    signal.throwIfAborted();
    // A verifier that fails has not judged: the sample must not count as wrong.
    return { reward: null, reason: "error", detail: { message: textOf(error) } };
  }
}

/** The fine for a completion near or at the limit of its length, from 0 to `penalty` (DAPO's soft punishment). */
export function overlongFine(rollout: Rollout, config: ResolvedConfig): number {
  const { mode, buffer, penalty } = config.overlong;
  if (mode !== "penalty") return 0;
  const over = rollout.tokenIds.length - (config.rollout.maxTokens - buffer);
  if (rollout.finish === "length") return penalty;
  return buffer === 0 || over <= 0 ? 0 : penalty * Math.min(1, over / buffer);
}

function fined(verdict: Judged, rollout: Rollout, config: ResolvedConfig): Judged {
  const fine = overlongFine(rollout, config);
  if (fine === 0 || verdict.reward === null) return verdict;
  const detail = { ...verdict.detail, overlongFine: fine };
  return { ...verdict, reward: verdict.reward - fine, unfined: verdict.reward, detail };
}

/** Every rollout's verdict. What the journal knows from before an interruption is not asked again. */
export async function judge(
  verifier: Verifier,
  rollouts: readonly Rollout[],
  config: ResolvedConfig,
  o: {
    readonly signal: AbortSignal;
    readonly occasion: Occasion;
    readonly journal?: VerdictJournal | undefined;
    /** With each verdict as it comes; it is waited for. */
    readonly keep?: ((rollout: Rollout, verdict: Judged) => Promise<void>) | undefined;
    /** After each verdict, with how many there are. */
    readonly onJudged?: ((judged: number) => void) | undefined;
  },
): Promise<Judged[]> {
  let judged = 0;
  const ask = async (rollout: Rollout): Promise<Judged> => {
    const fault = rollout.conversation?.fault;
    // Nobody can judge half a conversation, and the environment is asked again.
    if (fault !== undefined)
      return { reward: null, reason: `${OF_ENVIRONMENT}${fault.reason}`, detail: { ...fault.detail } };
    const place = o.journal?.at(o.occasion, rollout);
    if (place?.known !== undefined) return place.known;
    const verdict = await judgeOne(verifier, rollout, o.signal);
    await place?.record(verdict);
    return verdict;
  };
  const counted = async (rollout: Rollout): Promise<Judged> => {
    const verdict = fined(await ask(rollout), rollout, config);
    await o.keep?.(rollout, verdict);
    o.onJudged?.(++judged);
    return verdict;
  };
  return Promise.all(rollouts.map(counted));
}

/** Begins the reason of a conversation whose environment failed. */
const OF_ENVIRONMENT = "environment: ";

/** What was said instead of a reward, in one line. */
function refused({ reason = "no reason given", detail }: Judged): string {
  if (typeof detail.message === "string") return `${reason}: ${detail.message.split("\n")[0]!.replace(/\.$/, "")}`;
  return Object.keys(detail).length === 0 ? reason : `${reason} ${JSON.stringify(detail).slice(0, 200)}`;
}

/** Whose fault it is that nothing was judged. */
function whyUnjudged(verdicts: readonly Judged[], where: string): string {
  const all = verdicts.length;
  const failed = verdicts.filter(({ reason }) => reason?.startsWith(OF_ENVIRONMENT)).length;
  if (failed === 0) return `The verifier judged none of the ${all} completions of ${where}.`;
  if (failed === all) return `The environment failed in all ${all} conversations of ${where}, so that none was judged.`;
  const others = `the verifier judged none of the other ${all - failed}`;
  return `The environment failed in ${failed} of the ${all} conversations of ${where}, and ${others}.`;
}

/**
 * Without one verdict there is nothing to learn or to count, nor will there be the next time: better said than gone on with.
 * Verifier or environment was at fault, so what it said is no verdict to remember: `forget` sees to that it is asked again.
 */
export async function requireVerdicts(
  verdicts: readonly Judged[],
  where: string,
  forget: () => Promise<void> | undefined,
): Promise<void> {
  if (verdicts.some((verdict) => verdict.reward !== null)) return;
  await forget();
  throw new RlsdError(
    "ERR_RLSD_UNJUDGED",
    `${whyUnjudged(verdicts, where)} The first: ${refused(verdicts[0]!)}. Once it works again, call again: a run goes on with --resume (from code: hooks.resume).`,
  );
}
