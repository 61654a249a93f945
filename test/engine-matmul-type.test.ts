import { backendInfo, createPolicy, type EnginePolicy, grpo, loadPolicy, rowCoefficient } from "../lib/index.js";
import { relativeError } from "./support/safetensors.js";
import { gradientOf, prompts, tinyPolicy } from "./support/small-policy.js";

const rounds = backendInfo().cpu.matmulTypes?.includes("bf16") === true;
if (!rounds) process.stderr.write("not run: rounding of factors to bf16 (this processor has no instructions for it)\n");

const requests = [3, 9, 1, 17].map((n, i) => ({
  prompt: prompts(4)[i]!,
  completion: Int32Array.from({ length: n }, (_, j) => (7 * i + 3 * j + 1) % 37),
}));
const N = 30;
const flat = (rows: readonly Float32Array[]) => rows.flatMap((row) => [...row]);
const differenceOf = (a: readonly Float32Array[], b: readonly Float32Array[]) => {
  const other = flat(b);
  return Math.max(...flat(a).map((value, i) => Math.abs(value - other[i]!)));
};
const nll = { sequences: requests, advantages: new Float32Array(N).fill(-1 / N) };

describe("a policy whose products have bf16 factors", () => {
  let exact: EnginePolicy;
  let policy: EnginePolicy;
  beforeAll(async () => {
    exact = await tinyPolicy();
    policy = await tinyPolicy({}, { matmulType: "bf16" });
  });
  afterAll(async () => {
    await exact.dispose();
    await policy.dispose();
  });

  test("is near the exact one, and is that one where the processor has no such products", async () => {
    const difference = differenceOf(await policy.score(requests), await exact.score(requests));
    expect(difference).toBeLessThan(0.2);
    expect(difference > 0).toBe(rounds);
    const [a, b] = [await policy.accumulate(nll, rowCoefficient()), await exact.accumulate(nll, rowCoefficient())];
    expect(Math.abs(a.loss / b.loss - 1)).toBeLessThan(1e-2);
    const error = relativeError(await gradientOf(policy), await gradientOf(exact));
    expect(error).toBeLessThan(0.2);
    expect(error > 0).toBe(rounds);
    for (const one of [policy, exact]) await one.step({ learningRate: 0 });
  });

  test("gives the same bits in any batch and on any number of threads, and draws what it scores", async () => {
    const all = await policy.score(requests);
    for (const [i, request] of requests.entries()) expect((await policy.score([request]))[0]).toEqual(all[i]);
    await using single = await tinyPolicy({}, { matmulType: "bf16", threads: 1, batchTokens: 40 });
    expect(await single.score(requests)).toEqual(all);
    const asked = { maxTokens: 12, count: 3, seed: 5, stopTokenIds: [] };
    const drawn = await policy.generate(prompts(3), asked);
    expect(await single.generate(prompts(3), asked)).toEqual(drawn);
    const again = drawn.flatMap((many, i) =>
      many.map(({ tokenIds }) => ({ prompt: prompts(3)[i]!, completion: tokenIds })),
    );
    const logProbs = drawn.flatMap((many) => many.map((one) => one.logProbs));
    expect(differenceOf(await policy.score(again), logProbs)).toBeLessThan(1e-4);
  });

  test("weighs what it says itself as teacher by exactly 1", async () => {
    const teacherLogProbs = Float32Array.from(flat(await policy.score(requests)));
    await using twin = await policy.snapshot();
    expect(flat(await twin.score(requests))).toEqual([...teacherLogProbs]);
    const { evidenceWeights } = await policy.accumulate(
      { sequences: requests, advantages: Float32Array.of(1, -1, 0.5, 2), teacherLogProbs },
      grpo({ creditMix: 1 }),
    );
    expect(new Set(evidenceWeights)).toEqual(new Set([1]));
    await policy.step({ learningRate: 0 });
  });

  test("hands its type on to adapters and to what is copied of it, and trains", async () => {
    await using adapted = await policy.withLora({ rank: 2 });
    expect(await adapted.score(requests)).toEqual(await policy.score(requests));
    const first = await adapted.accumulate(nll, rowCoefficient());
    for (let step = 0; step < 20; step++) {
      await adapted.step({ learningRate: 2e-2 });
      await adapted.accumulate(nll, rowCoefficient());
    }
    expect((await adapted.accumulate(nll, rowCoefficient())).loss).toBeLessThan(first.loss);
    await using merged = await adapted.merge();
    expect(differenceOf(await merged.score(requests), await adapted.score(requests))).toBeLessThan(5e-2);
  });

  test("any other type is refused by name", async () => {
    const wrong = { matmulType: "f16" as never };
    await expect(
      createPolicy({ vocabSize: 37, hiddenSize: 16, numLayers: 1, numHeads: 2, maxLength: 8 }, wrong),
    ).rejects.toThrow(/matmulType.*f32.*bf16|f32.*bf16.*matmulType/);
    await expect(loadPolicy("nowhere", wrong)).rejects.toThrow(/matmulType/);
  });
});
