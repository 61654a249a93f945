/** What is timed on the CPU, a level at a time: each yields its figures as they come. */
import { rlsd } from "../../objectives/presets.js";
import { policyLoss, policyLossSync } from "../../ops/policy-loss.js";
import { tokenLogProbs, tokenLogProbsSync } from "../../ops/token-log-probs.js";
import type { DType } from "../../tensor/dtype.js";
import { empty, type Tensor } from "../../tensor/tensor.js";
import { Copier } from "./copy-rate.js";
import {
  bytesPerElement,
  headBatch,
  logitsFiller,
  logitsRest,
  logProbBatch,
  logProbOut,
  touched,
  viewLogits,
} from "./data.js";
import { copyFigure, type Figure, figure, type Subject } from "./figure.js";
import type { HeadPlan, LogitsPlan } from "./plan.js";
import { checkpoint, interleave, type Limits, type Pace, repeated, timed } from "./timing.js";

interface Terms {
  readonly threads: number;
  readonly quick: boolean;
  readonly cacheBytes: number;
  readonly pace: Pace;
}

const limits = (quick: boolean, milliseconds: number, least = 5, most = 100): Limits => ({
  milliseconds: quick ? milliseconds / 4 : milliseconds,
  least,
  most,
  warmups: 2,
});

export const SEQUENCE_TOKENS = 256;
const SMALL = { tokens: 32, length: 8 };
const SMALL_CALLS = 500;
/** Tokens in one reading of the clock, as far as so many calls have them. */
const LARGE_TOKENS = 65_536;
/** A queued call crosses two threads, which takes as long as tens of direct ones. */
const QUEUED_CALLS = 50;

/** The log-prob level: many tokens, and what a call costs that has few. */
export async function* benchLogProbs(tokens: number, { threads, quick, pace }: Terms): AsyncGenerator<Figure> {
  const objective = rlsd();
  const large = logProbBatch(tokens, SEQUENCE_TOKENS);
  const small = logProbBatch(SMALL.tokens, SMALL.length);
  const calls = Math.max(1, Math.min(SMALL_CALLS, Math.floor(LARGE_TOKENS / tokens)));
  const [largeCall, smallCall] = [tokens, SMALL.tokens].map((n) => ({ out: logProbOut(n), threads }));
  const times = await interleave(
    "log-probs",
    {
      large: repeated(calls, () => policyLossSync(large, objective, largeCall)),
      into: repeated(SMALL_CALLS, () => policyLossSync(small, objective, smallCall)),
      allocated: repeated(SMALL_CALLS, () => policyLossSync(small, objective, { threads })),
      queued: async () => {
        const begin = performance.now();
        for (let i = 0; i < QUEUED_CALLS; i++) await policyLoss(small, objective, { threads });
        return (performance.now() - begin) / QUEUED_CALLS;
      },
    },
    { ...limits(quick, 1500, 10, 300), warmups: 5 },
    pace,
  );
  const subject = { level: "logprob", device: "cpu", threads } as const;
  const sync = { ...subject, call: "policyLossSync" };
  yield figure({ ...sync, variant: "into out", tokens, callsPerRound: calls }, times.large);
  const few = { tokens: SMALL.tokens, callsPerRound: SMALL_CALLS };
  yield figure({ ...sync, ...few, variant: "into out" }, times.into);
  yield figure({ ...sync, ...few, variant: "results allocated" }, times.allocated);
  const queued = { ...few, call: "policyLoss", variant: "queued, awaited", callsPerRound: QUEUED_CALLS };
  yield figure({ ...subject, ...queued }, times.queued);
}

interface LogitsBench {
  readonly student: Tensor;
  readonly teacher: Tensor;
  readonly copier: Copier;
}

/** Scores of all rows, and of as many as a quarter of the last-level cache holds: what they cost without memory. */
async function* benchScores(
  subject: Omit<Subject, "call" | "variant"> & { readonly dtype: DType; readonly vocab: number },
  logits: Tensor,
  copy: () => number,
  copiedBytes: number,
  { threads, quick, pace, cacheBytes }: Terms,
): AsyncGenerator<Figure> {
  const { dtype, tokens, vocab } = subject;
  const row = vocab * bytesPerElement(dtype);
  // As many for each thread: with one row more for some, the others would wait.
  const few = Math.min(tokens, threads * Math.max(1, Math.floor(cacheBytes / 4 / row / threads)));
  const cachedLogits = viewLogits(logits, { dtype, vocab, tokens: few });
  const { tokenIds } = logitsRest({ dtype, vocab, tokens });
  const score = () => tokenLogProbsSync({ logits }, tokenIds, { threads });
  const scoreFew = () => tokenLogProbsSync({ logits: cachedLogits }, tokenIds.subarray(0, few), { threads });
  const times = await interleave(
    `logits, ${dtype}, scores`,
    {
      copy,
      score: () => timed(score),
      cached: () => {
        scoreFew(); // brings the rows into the cache
        return timed(scoreFew);
      },
    },
    limits(quick, 800),
    pace,
  );
  const scores = { ...subject, call: "tokenLogProbsSync" };
  const alone = { ...scores, variant: "scores alone", bytesMoved: tokens * row };
  yield figure(alone, times.score, copyFigure(copiedBytes, times.copy));
  yield figure({ ...scores, variant: "rows in cache", tokens: few, bytesMoved: few * row }, times.cached);
}

/** One dtype. Every round begins with logits: the gradient of the round before lies where they were. */
async function* benchLogitsOf(
  plan: LogitsPlan,
  dtype: DType,
  { student, teacher, copier }: LogitsBench,
  terms: Terms,
): AsyncGenerator<Figure> {
  const { threads, quick, pace } = terms;
  const { tokens, vocab } = plan;
  const shape = { tokens, vocab, dtype };
  const refill = logitsFiller(shape, 1);
  logitsFiller(shape, 2)(teacher);
  const rest = logitsRest(shape);
  const batch = { student: { logits: student }, teacher: { logits: teacher }, ...rest };
  const objective = rlsd();
  const copy = () => {
    refill(student);
    copier.copy(); // off the clock: what the refill left in the caches has still to be written to memory
    return copier.copy();
  };
  const loss = () => timed(() => policyLossSync(batch, objective, { inPlace: true, threads }));
  const bytes = tokens * vocab * bytesPerElement(dtype);
  const subject = { level: "logits", device: "cpu", dtype, tokens, vocab, threads, callsPerRound: 1 } as const;
  const losses = await interleave(`logits, ${dtype}`, { copy, loss }, limits(quick, 1600), pace);
  yield figure(
    { ...subject, call: "policyLossSync", variant: "teacher logits, in place", bytesMoved: 3 * bytes },
    losses.loss,
    copyFigure(copier.bytesMoved, losses.copy),
  );
  yield* benchScores(subject, student, copy, copier.bytesMoved, terms);
}

/** The logits level, one dtype after the other in the same memory. */
export async function* benchLogits(plan: LogitsPlan, terms: Terms): AsyncGenerator<Figure> {
  const { tokens, vocab, dtypes } = plan;
  const widest: DType = dtypes.includes("f32") ? "f32" : "bf16";
  const [students, teachers] = [empty([tokens, vocab], widest), empty([tokens, vocab], widest)];
  for (const dtype of dtypes) {
    await checkpoint(terms.pace);
    terms.pace.show(`logits, ${dtype}, making them`, 0);
    const shape = { tokens, vocab, dtype };
    const copier = await Copier.start(tokens * vocab * bytesPerElement(dtype), terms.threads);
    try {
      const tensors = { student: viewLogits(students, shape), teacher: viewLogits(teachers, shape) };
      yield* benchLogitsOf(plan, dtype, { ...tensors, copier }, terms);
    } finally {
      await copier.stop();
    }
  }
}

/** The head level. Queued, so that Ctrl-C stops a call that takes seconds. */
export async function* benchHead(plan: HeadPlan, { threads, quick, pace }: Terms): AsyncGenerator<Figure> {
  const { tokens, vocab, hidden } = plan;
  const objective = rlsd();
  for (const dtype of plan.dtypes) {
    await checkpoint(pace);
    pace.show(`head, ${dtype}, making it`, 0);
    const batch = headBatch({ tokens, vocab, hidden, dtype });
    await checkpoint(pace);
    const out = { hidden: touched([tokens, hidden], dtype), head: touched([vocab, hidden], dtype) };
    const { signal } = pace;
    const times = await interleave(
      `head, ${dtype}`,
      {
        loss: () => timed(() => policyLoss(batch, objective, { out, threads, signal })),
        score: () => timed(() => tokenLogProbs(batch.student, batch.tokenIds, { threads, signal })),
      },
      { ...limits(quick, 5000, 3, 20), warmups: 1 },
      pace,
    );
    const subject = { level: "head", device: "cpu", dtype, tokens, vocab, hidden, threads, callsPerRound: 1 } as const;
    const product = 2 * tokens * vocab * hidden;
    yield figure(
      { ...subject, call: "policyLoss", variant: "forward, backward, teacher", operations: 4 * product },
      times.loss,
    );
    yield figure({ ...subject, call: "tokenLogProbs", variant: "forward", operations: product }, times.score);
  }
}
