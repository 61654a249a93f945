import {
  backendInfo,
  type EnginePolicy,
  type NewModelConfig,
  rowCoefficient,
  type SamplingOptions,
} from "../lib/index.js";
import { KINDS, prompts, tinyPolicy } from "./support/small-policy.js";

const rounds = backendInfo().cpu.matmulTypes?.includes("bf16") === true;
if (!rounds) process.stderr.write("not run: weights packed in bf16 (this processor has no instructions for it)\n");

const MIB = 2 ** 20;
/** Matrices that outweigh what a product takes beside them. */
const LARGE = { vocabSize: 2048, hiddenSize: 128, intermediateSize: 256 } as const;
const open = (c: Partial<NewModelConfig> = {}, o: Parameters<typeof tinyPolicy>[1] = {}): Promise<EnginePolicy> =>
  tinyPolicy({ ...c, ...LARGE }, { threads: 1, ...o });

/** Twelve sequences at once: more than there are kernels for that read rows as they are. */
const many = (o: Partial<SamplingOptions> = {}): SamplingOptions => ({
  maxTokens: 16,
  count: 4,
  seed: 3,
  stopTokenIds: [],
  ...o,
});
/** So few steps that nothing is packed. */
const SHORT = { maxTokens: 2 };

/** Bytes that a call leaves held beside what was held before. */
async function leftBy(policy: EnginePolicy, call: () => Promise<unknown>): Promise<number> {
  const before = await policy.memoryBytes();
  await call();
  return (await policy.memoryBytes()) - before;
}

/** What drawing leaves of packed weights. */
async function packedBy(policy: EnginePolicy, o: SamplingOptions): Promise<number> {
  await policy.generate(prompts(3), { ...o, ...SHORT });
  return leftBy(policy, () => policy.generate(prompts(3), o));
}

/** At least this much of a model are matrices that hidden states are multiplied by. */
const matrixBytes = ({ parameterCount }: EnginePolicy) => 4 * parameterCount - 4 * LARGE.vocabSize * LARGE.hiddenSize;

describe("weights that lie packed while a policy draws", () => {
  test("stay from call to call, and go when the weights change", async () => {
    await using policy = await open();
    const packed = await packedBy(policy, many());
    expect(packed).toBeGreaterThan(0.9 * matrixBytes(policy));
    expect(await leftBy(policy, () => policy.generate(prompts(3), many()))).toBe(0);
    const name = policy.parameterNames[0]!;
    const values = await policy.readParameter(name);
    expect(await leftBy(policy, () => policy.writeParameter(name, values))).toBe(-packed);
  });

  test.each(KINDS)(
    "give the tokens and log-probs that come where memory is too short for them: %s",
    async (_, config) => {
      await using roomy = await open(config);
      const drawn = await roomy.generate(prompts(3), many());
      await using tight = await open(config);
      await using bounded = await open(config, { memoryLimit: (await tight.memoryBytes()) + 6 * MIB });
      expect(await bounded.generate(prompts(3), many())).toEqual(drawn);
      expect(await packedBy(bounded, many())).toBe(0);
      expect(await packedBy(roomy, many())).toBe(0);
      expect(await roomy.memoryBytes()).toBeGreaterThan((await bounded.memoryBytes()) + 0.9 * matrixBytes(roomy));
    },
  );

  test("follow a step: what is drawn next is drawn from the weights as they are then", async () => {
    await using policy = await open();
    await policy.generate(prompts(3), many());
    const sequences = prompts(3).map((prompt) => ({ prompt, completion: Int32Array.of(1, 2) }));
    await policy.accumulate({ sequences, advantages: new Float32Array(6).fill(-1) }, rowCoefficient());
    await policy.step({ learningRate: 0.3 });
    const [group] = await policy.generate(prompts(1), many({ count: 12 }));
    const scored = await policy.score(group!.map(({ tokenIds }) => ({ prompt: prompts(1)[0]!, completion: tokenIds })));
    expect(scored).toEqual(group!.map(({ logProbs }) => logProbs));
  });

  test("give way to keys and values", async () => {
    await using free = await open({ maxLength: 900 });
    const long = many({ maxTokens: 800 });
    const expected = await free.generate(prompts(3), long);
    const used = await free.memoryBytes(); // packed weights, but no keys and values
    await using bounded = await open({ maxLength: 900 }, { memoryLimit: used + 8.5 * MIB });
    expect(await packedBy(bounded, many())).toBeGreaterThan(0.9 * matrixBytes(bounded));
    expect(await bounded.generate(prompts(3), long)).toEqual(expected);
    // Packed anew: they were given up on the way.
    expect(await packedBy(bounded, many())).toBeGreaterThan(0.9 * matrixBytes(bounded));
  });

  (rounds ? test : test.skip)("are half as large with bf16 factors, and pay for one sequence too", async () => {
    const one = many({ count: 1 });
    await using wide = await open();
    await using narrow = await open({}, { matmulType: "bf16" });
    expect(await packedBy(wide, one)).toBe(0);
    const packed = await packedBy(narrow, one);
    expect(packed).toBeGreaterThan(0.45 * matrixBytes(narrow));
    expect(packed).toBeLessThan(0.55 * 4 * narrow.parameterCount);
  });
});
