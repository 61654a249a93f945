import { join } from "node:path";
import { createPolicy, type EnginePolicy, grpo, loadPolicy, type PassOptions } from "../lib/index.js";
import { ids, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const LIMIT = 8; /* ms */
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The longest of the shortest times that a call took to end, aborted at some of its parts: others need the processors too. */
async function slowestAbort(
  waits: readonly number[],
  start: (o: PassOptions) => Promise<unknown>,
  attempts = 20,
): Promise<number> {
  let slowest = 0;
  for (let wait of waits) {
    let shortest = Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < attempts && shortest >= LIMIT; attempt++) {
      const controller = new AbortController();
      const call = start({ signal: controller.signal }).then(
        () => "done",
        (error: Error) => error.name,
      );
      await sleep(wait);
      const asked = performance.now();
      controller.abort();
      const ended = await call;
      if (ended === "AbortError") shortest = Math.min(shortest, performance.now() - asked);
      // It was done before it was asked to stop: this machine has become faster, or this thread woke up late.
      else wait *= 0.8;
    }
    slowest = Math.max(slowest, shortest);
  }
  return slowest;
}

describe("an aborted call of a large model", () => {
  let policy: EnginePolicy;
  let teacher: EnginePolicy;
  beforeAll(async () => {
    // A gradient of 200 MB: to write it once takes 20 ms.
    const large = { vocabSize: 100_000, numLayers: 1, numHeads: 2, maxLength: 1024 };
    policy = await createPolicy({ ...large, hiddenSize: 256 });
    teacher = await createPolicy({ ...large, hiddenSize: 128 });
  }, 60_000);
  afterAll(async () => {
    await policy.dispose();
    await teacher.dispose();
  });

  const completion = Int32Array.from({ length: 200 }, (_, i) => i * 7);
  const sequences = [{ prompt: ids(1), completion }];
  const batch = { sequences, advantages: Float32Array.of(1) };
  const calls: [string, (o: PassOptions) => Promise<unknown>][] = [
    ["distill", (o) => policy.distill({ sequences, teacher, teacherSequences: sequences }, { divergence: "jsd" }, o)],
    ["accumulate", (o) => policy.accumulate(batch, grpo(), o)],
  ];

  test.each(calls)(
    "ends within 8 ms wherever it is, its gradient 0: %s",
    async (_, start) => {
      expect(await slowestAbort([1, 15, 40], start)).toBeLessThan(LIMIT);
      expect((await policy.step({ learningRate: 0 })).gradientNorm).toBe(0);
    },
    60_000,
  );
});

test("the first batch of a large model in a 16-bit type ends within 8 ms while its weights become float32", async () => {
  const folder = join(temporaryFolder(), "bf16");
  const large = { vocabSize: 100_000, numLayers: 1, numHeads: 2, hiddenSize: 256, maxLength: 64 };
  await using made = await createPolicy(large);
  await made.save(folder, { dtype: "bf16" });
  const request = { prompt: ids(1), completion: ids(2, 3) };
  const batch = { sequences: [request], advantages: Float32Array.of(1) };
  let shortest = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 20 && shortest >= LIMIT; attempt++) {
    await using policy = await loadPolicy(folder);
    shortest = await slowestAbort([3], (o) => policy.accumulate(batch, grpo(), o), 1);
    // What was not finished begins anew.
    expect((await policy.accumulate(batch, grpo())).logProbs).toEqual((await policy.score([request]))[0]);
  }
  expect(shortest).toBeLessThan(LIMIT);
}, 60_000);

describe("an aborted call of a long sequence, of which attention takes most", () => {
  let policy: EnginePolicy;
  beforeAll(async () => {
    const heads = { numHeads: 8, numKvHeads: 1, headDim: 32, hiddenSize: 32, intermediateSize: 32 };
    policy = await createPolicy({ ...heads, vocabSize: 32, numLayers: 1, maxLength: 8192 });
  });
  afterAll(() => policy.dispose());

  const sequences = [{ prompt: ids(1), completion: Int32Array.from({ length: 4000 }, (_, i) => i % 32) }];
  const batch = { sequences, advantages: Float32Array.of(1) };

  test("ends within 8 ms, forward and backward", async () => {
    const start = performance.now();
    await policy.accumulate(batch, grpo());
    const whole = performance.now() - start;
    const waits = [0.1, 0.3, 0.5, 0.6].map((part) => part * whole);
    expect(await slowestAbort(waits, (o) => policy.accumulate(batch, grpo(), o))).toBeLessThan(LIMIT);
  }, 60_000);

  test("ends within 8 ms where it draws: a prompt of 8000 tokens", async () => {
    const prompt = Int32Array.from({ length: 8000 }, (_, i) => i % 32);
    const draw = (o: PassOptions): Promise<unknown> => policy.generate([prompt], { maxTokens: 1, seed: 1, ...o });
    const start = performance.now();
    await draw({});
    const whole = performance.now() - start;
    expect(await slowestAbort([0.5 * whole, 0.7 * whole], draw)).toBeLessThan(LIMIT);
  }, 60_000);
});

test("what was accumulated before an abort, a failure or a step is in no gradient", async () => {
  const [policy, fresh] = [await tinyPolicy(), await tinyPolicy()];
  const name = "model.norm.weight";
  const batch = { sequences: [{ prompt: ids(1, 2), completion: ids(3, 4) }], advantages: Float32Array.of(1) };
  await fresh.accumulate(batch, grpo());
  const wanted = await fresh.readParameter(name, "gradient");
  expect(wanted.some((x) => x !== 0)).toBe(true);

  const zero = new Float32Array(wanted.length);
  expect(await policy.readParameter(name, "gradient")).toEqual(zero);
  await policy.accumulate(batch, grpo());
  await policy.step({ learningRate: 0 });
  expect(await policy.readParameter(name, "gradient")).toEqual(zero);
  await policy.accumulate(batch, grpo());
  const oldLogProbs = Float32Array.of(Number.NaN, -1);
  await expect(policy.accumulate({ ...batch, oldLogProbs }, grpo())).rejects.toMatchObject({
    code: "ERR_RLSD_NON_FINITE",
  });
  expect(await policy.readParameter(name, "gradient")).toEqual(zero);
  await policy.accumulate(batch, grpo());
  expect(await policy.readParameter(name, "gradient")).toEqual(wanted);
  await policy.dispose();
  await fresh.dispose();
});
