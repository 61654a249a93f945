import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { Verifier } from "../verifiers/verifier.js";
import type { ResolvedConfig } from "./config.js";
import { allSaid, complete, type Talk } from "./conversation.js";
import { type Judged, judge } from "./judge.js";
import { hashSeed } from "./random.js";
import { PROMPTS_A_CALL, type Prompted, type Rollout } from "./rollout.js";
import { countTokens, type OnStage } from "./stage.js";
import type { VerdictJournal } from "./verdict-journal.js";

/** What held-out completions are drawn and judged with. */
export interface PredictionInput {
  readonly policy: Policy;
  readonly tokenizer: Tokenizer;
  readonly verifier: Verifier;
  /** Who the model talks to; undefined: it speaks once. */
  readonly talk?: Talk | undefined;
  readonly prompts: readonly Prompted[];
  readonly config: ResolvedConfig;
  /** Verdicts from before an interruption. */
  readonly journal?: VerdictJournal | undefined;
  /** Whole predictions from before one. */
  readonly kept?: KeptPredictions | undefined;
  readonly step: number;
  readonly signal: AbortSignal;
  readonly onStage?: OnStage | undefined;
}

/** Which of an evaluation's completions one is. */
export interface Place {
  readonly greedy: boolean;
  /** Of the held-out row, counted from 0. */
  readonly group: number;
  /** Of the row's completions of that kind, counted from 0. */
  readonly sample: number;
}

/** A held-out completion and its verdict. */
export interface Prediction extends Place {
  /** What was drawn, and the prompt that it answers. */
  readonly rollout: Rollout;
  /** After the fine of `overlong`, where there is one. */
  readonly verdict: Judged;
}

/** What metrics need of a prediction. */
export interface Scored {
  readonly group: number;
  /** All that the model said. */
  readonly text: string;
  /** Tokens. */
  readonly length: number;
  /** Of the model; undefined: it had one. */
  readonly turns: number | undefined;
  readonly finish: Rollout["finish"];
  readonly verdict: Judged;
}

/** Where predictions are kept as they come, and are found again by an evaluation that goes on. */
export interface KeptPredictions {
  find(place: Place): Scored | undefined;
  keep(prediction: Prediction): Promise<Scored>;
  /** They are asked for again. */
  forget(): Promise<void>;
}

/** Completions of one kind. */
interface Kind {
  readonly name: "greedy" | "sampled";
  readonly count: number;
  readonly temperature: number;
  /** Completions of other kinds, which are done already. */
  readonly before: number;
}

const scoredOf = ({ rollout, verdict }: Prediction): Scored => {
  const { group, text: last, tokenIds, finish, conversation } = rollout;
  const text = allSaid({ text: last, ...conversation });
  return { group, text, length: tokenIds.length, turns: conversation?.turns, finish, verdict };
};

/** Completions of one call: those whose places have nothing yet are missing. */
interface Call {
  readonly kind: Kind;
  readonly prompts: readonly Prompted[];
  readonly places: readonly Place[];
  readonly scored: (Scored | undefined)[];
}

/**
 * Which of a call's completions are drawn. Greedy ones do not depend on each other; of samples all are, or they would be
 * other draws.
 */
function drawnOf({ kind, prompts, scored }: Call): { readonly at: number[]; readonly prompts: readonly Prompted[] } {
  const all = [...scored.keys()];
  if (kind.name === "sampled") return { at: all, prompts };
  const at = all.filter((i) => scored[i] === undefined);
  return { at, prompts: at.map((i) => prompts[i]!) };
}

/** Judges what is missing as it is drawn; `settled` waits for the last verdict. */
function createJudging(
  input: PredictionInput,
  { kind, places, scored }: Call,
  o: { readonly signal: AbortSignal; readonly onFailed: (error: unknown) => void; readonly onJudged: () => void },
) {
  const { verifier, config, journal, kept, step } = input;
  const predictions: Prediction[] = [];
  const taken = new Set(scored.flatMap((one, i) => (one === undefined ? [] : [i])));
  const pending: Promise<unknown>[] = [];
  const keepAt = (i: number) => async (one: Rollout, verdict: Judged) => {
    const prediction = { ...places[i]!, rollout: one, verdict };
    scored[i] = (await kept?.keep(prediction)) ?? scoredOf(prediction);
    predictions.push(prediction);
    o.onJudged();
  };
  return {
    take(i: number, drawn: Rollout): void {
      if (taken.has(i)) return;
      taken.add(i);
      const one = { ...drawn, group: places[i]!.group };
      const occasion = { step, name: kind.name };
      const verdict = judge(verifier, [one], config, { signal: o.signal, occasion, journal, keep: keepAt(i) });
      verdict.catch(o.onFailed);
      pending.push(verdict);
    },
    async settled(): Promise<Prediction[]> {
      await Promise.all(pending);
      return predictions.sort((a, b) => a.group - b.group || a.sample - b.sample);
    },
    /** Where it fails: what is kept by then is not written to any more. */
    ended: () => Promise.allSettled(pending),
  };
}

/** Draws and judges the completions of a call that are missing. */
async function drawMissing(
  input: PredictionInput,
  call: Call,
  onJudged: () => void,
  onToken: (() => void) | undefined,
): Promise<Prediction[]> {
  const { policy, tokenizer, config, kept } = input;
  const { kind, places } = call;
  const failed = new AbortController();
  const signal = AbortSignal.any([input.signal, failed.signal]);
  const judging = createJudging(input, call, { signal, onFailed: (error) => failed.abort(error), onJudged });
  const { at, prompts } = drawnOf(call);
  try {
    const asked = {
      sampling: config.rollout,
      count: kind.count,
      temperature: kind.temperature,
      // The same draws at every evaluation: what changes between two of them is the policy.
      seed: hashSeed(config.seed, kind.name, places[0]!.group),
      firstGroup: 0,
      signal,
      onToken,
      // What is to be kept does not wait for the longest completion.
      ...(kept && { onRollout: (i: number, one: Rollout) => judging.take(at[i]!, one) }),
    };
    const rollouts = await complete(policy, tokenizer, prompts, asked, input.talk);
    for (const [i, one] of rollouts.entries()) judging.take(at[i]!, one);
    return await judging.settled();
  } catch (error) {
    await judging.ended();
    throw error;
  }
}

/** Every completion of one kind, those that are drawn now in `drawn` too. */
export async function predict(input: PredictionInput, kind: Kind, drawn: Prediction[]): Promise<Scored[]> {
  const { prompts, config, kept, step } = input;
  const { name, count } = kind;
  const out: Scored[] = [];
  const total = prompts.length * (1 + config.eval.samples);
  let there = 0;
  let tokens: number | undefined;
  const tell = () => {
    const done = kind.before + out.length + there;
    input.onStage?.({ step, doing: "evaluation", done, total, ...(tokens !== undefined && { tokens }) });
  };
  const onToken = countTokens(
    input.onStage &&
      ((count) => {
        tokens = count;
        tell();
      }),
  );
  tell();
  // As many completions at once as greedy ones: an interruption loses no more of the samples than these.
  const atOnce = Math.max(1, Math.floor(PROMPTS_A_CALL / count));
  for (let start = 0; start < prompts.length; start += atOnce) {
    const asked = prompts.slice(start, start + atOnce);
    const places = Array.from({ length: asked.length * count }, (_, i) => ({
      greedy: name === "greedy",
      group: start + Math.floor(i / count),
      sample: i % count,
    }));
    const scored = places.map((place) => kept?.find(place));
    there = scored.filter((one) => one !== undefined).length;
    if (there < places.length) {
      if (there > 0) tell();
      const onJudged = () => {
        there++;
        tell();
      };
      drawn.push(...(await drawMissing(input, { kind, prompts: asked, places, scored }, onJudged, onToken)));
    }
    for (const one of scored) out.push(one!);
    there = 0;
  }
  return out;
}
