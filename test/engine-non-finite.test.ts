import {
  type DistillOptions,
  type EnginePolicy,
  grpo,
  type NewModelConfig,
  type RlsdError,
  type ScoreRequest,
} from "../lib/index.js";
import { ids, TINY, tinyPolicy } from "./support/small-policy.js";

/** An id whose embedding is no number: of it, and of what comes after it in a sequence, nothing is finite. */
const BAD = 5;
const embedding = "model.embed_tokens.weight";

async function broken(options: { batchTokens?: number; threads?: number } = {}): Promise<EnginePolicy> {
  const policy = await tinyPolicy({}, options);
  const weights = await policy.readParameter(embedding);
  weights.fill(Number.NaN, BAD * TINY.hiddenSize, (BAD + 1) * TINY.hiddenSize);
  await policy.writeParameter(embedding, weights);
  return policy;
}

/** What follows BAD is not finite: tokens 5, 6 and 7 of the batch, in completion 2, and 10, in completion 4. */
const sequences: ScoreRequest[] = [
  { prompt: ids(1, 2), completion: ids(3, 4) },
  { prompt: ids(1, 2), completion: ids() },
  { prompt: ids(1), completion: ids(9, 4, BAD, 6, 7, 8) },
  { prompt: ids(7, 8), completion: ids(3) },
  { prompt: ids(2), completion: ids(BAD, 3) },
];
const bad = [5, 6, 7, 10];
const tokens = 11;
const passes = [{}, { batchTokens: 1 }, { batchTokens: 6 }, { threads: 1 }] as const;
const failed = (call: Promise<unknown>): Promise<RlsdError> =>
  call.then(
    () => Promise.reject(new Error("it did not fail")),
    (error: RlsdError) => error,
  );

describe.each(passes)("a batch of which some tokens have no finite log-prob, %j", (options) => {
  let policy: EnginePolicy;
  beforeAll(async () => {
    policy = await broken(options);
  });
  afterAll(() => policy.dispose());

  test("score names the first of the batch, and counts them all", async () => {
    expect(await failed(policy.score(sequences))).toMatchObject({
      code: "ERR_RLSD_NON_FINITE",
      index: 5,
      count: 4,
      message: "Expected a finite log-prob at every token but token 3 of completion 2 has none (4 tokens in all).",
    });
  });

  test("distill names the first of the batch, counts them all, and leaves no gradient", async () => {
    const call = policy.distill({ sequences, teacher: policy, teacherSequences: sequences }, { divergence: "jsd" });
    expect(await failed(call)).toMatchObject({
      code: "ERR_RLSD_NON_FINITE",
      index: 5,
      count: 4,
      message:
        "Expected finite logits and a finite divergence at every token but token 3 of completion 2 has none (4 tokens in all).",
    });
    expect((await policy.step({ learningRate: 0 })).gradientNorm).toBe(0);
  });

  test("statistics of what is left are those of a batch without the bad tokens", async () => {
    const teacher = await tinyPolicy({ hiddenSize: 16, numHeads: 2 } as Partial<NewModelConfig>, { seed: 4 });
    const completionMask = new Uint8Array(tokens).fill(1);
    for (const i of bad) completionMask[i] = 0;
    const batch = { sequences, teacher, teacherSequences: sequences };
    const skip: DistillOptions = { nonFinite: "skip", valueClamp: 0.2, normalizer: 3, divergence: "reverse-kl" };
    const got = await policy.distill(batch, skip);
    const wanted = await policy.distill({ ...batch, completionMask }, skip);
    expect(got.stats).toMatchObject({ tokens, nonFiniteRows: bad.length, sequences: 5 });
    expect(got.loss).toBeCloseTo(wanted.loss, 6);
    expect(got.stats.mean).toBeCloseTo(wanted.stats.mean, 6);
    expect(got.stats.clampedFraction).toBeCloseTo(wanted.stats.clampedFraction, 6);
    expect(got.stats.clampedFraction).toBeGreaterThan(0);
    await policy.step({ learningRate: 0 });
    await teacher.dispose();
  });

  test("the mean entropy is over the tokens that the loss has read, whichever log-prob a token lacks", async () => {
    const oldLogProbs = new Float32Array(tokens).fill(-3);
    oldLogProbs[0] = Number.NaN;
    const batch = { sequences, advantages: new Float32Array(5).fill(1) };
    const { stats } = await policy.accumulate({ ...batch, oldLogProbs }, grpo({ nonFinite: "skip" }));
    const completionMask = new Uint8Array(tokens).fill(1);
    for (const i of [0, ...bad]) completionMask[i] = 0;
    const wanted = await policy.accumulate({ ...batch, completionMask }, grpo({ nonFinite: "skip" }));
    expect(stats.nonFiniteRows).toBe(5);
    expect(stats.entropyMean).toBeCloseTo(wanted.stats.entropyMean!, 6);
    await policy.step({ learningRate: 0 });
  });
});

test("score and distill say the same of a batch whatever the passes and the threads", async () => {
  const said = await Promise.all(
    passes.map(async (options) => {
      const policy = await broken(options);
      const error = await failed(policy.score(sequences));
      await policy.dispose();
      return error.message;
    }),
  );
  expect(new Set(said).size).toBe(1);
});

test("generate names the completion whose logits are not finite, and the policy works on", async () => {
  const policy = await broken();
  const prompts = [ids(1, 2), ids(3), ids(4, BAD), ids(6)];
  const error = await failed(policy.generate(prompts, { maxTokens: 3, seed: 1, count: 2 }));
  expect(error).toMatchObject({
    code: "ERR_RLSD_NON_FINITE",
    index: 4,
    message: "Expected finite logits for every completion but completion 0 of prompt 2 has none at its token 0.",
  });
  const drawn = await policy.generate([ids(1, 2)], { maxTokens: 1, seed: 1 });
  expect(drawn[0]![0]!.tokenIds).toHaveLength(1);
  await policy.dispose();
});

test("also where it was drawn on: the token that follows the one without a number", async () => {
  const policy = await broken();
  // Every token is as likely as any, BAD too.
  await policy.writeParameter("lm_head.weight", new Float32Array(37 * TINY.hiddenSize));
  const { message, index } = await failed(policy.generate([ids(1)], { maxTokens: 90, seed: 3, stopTokenIds: [] }));
  expect(index).toBe(0);
  expect(message).toMatch(
    /^Expected finite logits for every completion but completion 0 of prompt 0 has none at its token [1-9]/,
  );
  await policy.dispose();
});
