import { type EnginePolicy, loadPolicy, rowCoefficient } from "../lib/index.js";
import { adapted, allOf } from "./support/lora.js";
import { ids, prompts, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const sequences = prompts(6).map((prompt, i) => ({ prompt, completion: ids(1 + i, 2, 3, 4, 5) }));
const batch = { sequences, advantages: new Float32Array(30).fill(-1 / 30) };
const nll = rowCoefficient({ reduction: "token-sum" });
const prompt = ids(3, 14, 15, 9, 26);
const ADAPTERS = { rank: 2, alpha: 3 };

/** Every order of the numbers below n. */
function orders(n: number): number[][] {
  if (n === 0) return [[]];
  return orders(n - 1).flatMap((order) =>
    Array.from({ length: n }, (_, at) => [...order.slice(0, at), n - 1, ...order.slice(at)]),
  );
}

async function train(policy: EnginePolicy): Promise<void> {
  await policy.accumulate(batch, nll);
  await policy.step({ learningRate: 0.01 });
}

describe("policies that read the same weights", () => {
  test("work on whatever the order in which the others are disposed of", async () => {
    for (const order of orders(4)) {
      const base = await tinyPolicy();
      const policy = await adapted(base, ADAPTERS);
      const all = [base, policy, await policy.snapshot(), await policy.base()];
      const wanted = await Promise.all(all.map((p) => p.logits(prompt)));
      expect([wanted[2], wanted[3]]).toEqual([wanted[1], wanted[0]]);
      for (const [done, i] of order.entries()) {
        // The others' calls are under way while this one is disposed of.
        const left = order.slice(done + 1);
        const calls = left.map((k) => all[k]!.logits(prompt));
        await all[i]!.dispose();
        expect(await Promise.all(calls)).toEqual(left.map((k) => wanted[k]));
        expect(await Promise.all(left.map((k) => all[k]!.logits(prompt)))).toEqual(left.map((k) => wanted[k]));
      }
    }
  });

  test("refuse a change of the weights until they have one reader again", async () => {
    const base = await tinyPolicy();
    const other = await tinyPolicy({}, { seed: 4 });
    const name = "model.norm.weight";
    const norm = await base.readParameter(name);
    const changes = [
      () => base.accumulate(batch, nll),
      () => base.step({ learningRate: 0.1 }),
      () =>
        base.writeParameter(
          name,
          norm.map((x) => 2 * x),
        ),
      () => base.copyFrom(other),
      () => base.copyFrom(other, 0.5),
    ];
    const before = await base.logits(prompt);
    const policy = await base.withLora(ADAPTERS);
    const snapshot = await policy.snapshot();
    for (const readers of [policy, snapshot]) {
      for (const change of changes) {
        await expect(change()).rejects.toMatchObject({
          code: "ERR_RLSD_INVALID_ARGUMENT",
          message: expect.stringMatching(/^Other policies read these weights, .* or dispose of those policies first/),
        });
      }
      expect(await base.logits(prompt)).toEqual(before);
      await train(readers);
      await readers.dispose();
    }
    for (const change of changes) await change();
    expect(await base.logits(prompt)).not.toEqual(before);
    await base.dispose();
    await other.dispose();
  });

  test("a gradient that was added up before waits for the others to be gone", async () => {
    const [base, alone] = [await tinyPolicy(), await tinyPolicy()];
    await base.accumulate(batch, nll);
    const policy = await base.withLora(ADAPTERS);
    await expect(base.step({ learningRate: 0.01 })).rejects.toThrow(/Other policies read these weights/);
    await policy.dispose();
    await base.step({ learningRate: 0.01 });
    await train(alone);
    expect(await allOf(base)).toEqual(await allOf(alone));
    await base.dispose();
    await alone.dispose();
  });
});

describe("copies of adapters", () => {
  test("a snapshot does not follow, and copyFrom moves towards the other", async () => {
    const base = await tinyPolicy();
    const policy = await adapted(base, ADAPTERS);
    const teacher = await policy.snapshot();
    const old = await allOf(policy);
    await train(policy);
    const now = await allOf(policy);
    expect(await allOf(teacher)).toEqual(old);
    await teacher.copyFrom(policy, 1);
    expect(await allOf(teacher)).toEqual(old);
    await teacher.copyFrom(policy, 0.5);
    for (const [i, mixed] of (await allOf(teacher)).entries()) {
      for (const [k, w] of mixed.entries()) expect(w).toBeCloseTo((old[i]![k]! + now[i]![k]!) / 2, 6);
    }
    await teacher.copyFrom(policy);
    expect(await teacher.logits(prompt)).toEqual(await policy.logits(prompt));
    for (const p of [base, policy, teacher]) await p.dispose();
  });

  test.each([
    ["another rank", { ...ADAPTERS, rank: 1, alpha: 1.5 }, /lora_A\.weight \[1, 4\] where .*lora_A\.weight \[2, 4\]/],
    ["other matrices", { ...ADAPTERS, targets: ["q_proj"] as const }, /nothing where|trains .*q_proj.* where .*k_proj/],
    ["another scale", { ...ADAPTERS, alpha: 4 }, /Expected adapters with the scale 1\.5 but received .* with 2/],
    ["none", undefined, /it trains model\.embed_tokens\.weight \[37, 4\] where this one trains base_model\.model\./],
  ])("copyFrom refuses %s, also where the blocks of memory are alike", async (_, options, message) => {
    // So narrow that every adapter of rank 1 and of rank 2 fills one cache line.
    const base = await tinyPolicy({ hiddenSize: 4, intermediateSize: 4, numHeads: 2 });
    const policy = await adapted(base, ADAPTERS);
    const before = await allOf(policy);
    const other = options === undefined ? base : await adapted(base, options);
    await expect(policy.copyFrom(other)).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
    expect(await allOf(policy)).toEqual(before);
    for (const p of new Set([base, policy, other])) await p.dispose();
  });
});

test("copyFrom takes adapters on the same weights, in memory or read from one folder, and on no others", async () => {
  const [one, two] = [await tinyPolicy(), await tinyPolicy({}, { seed: 4 })];
  const [policy, other] = [await adapted(one, ADAPTERS), await one.withLora(ADAPTERS)];
  const foreign = await two.withLora(ADAPTERS);
  await other.copyFrom(policy);
  expect(await allOf(other)).toEqual(await allOf(policy));
  await expect(policy.copyFrom(foreign)).rejects.toMatchObject({
    code: "ERR_RLSD_INVALID_ARGUMENT",
    message: "Expected adapters on the same weights: save the others and put them on these by withAdapters().",
  });
  const folder = temporaryFolder();
  await one.save(folder);
  const loaded = await loadPolicy(folder);
  const read = await loaded.withLora(ADAPTERS);
  await read.copyFrom(policy);
  expect(await read.logits(prompt)).toEqual(await policy.logits(prompt));
  for (const p of [policy, other, foreign, one, two, loaded, read]) await p.dispose();
});

describe("memory", () => {
  test("training adapters takes no gradient and no moments of the weights", async () => {
    const [base, whole] = [await tinyPolicy({ vocabSize: 3000 }), await tinyPolicy({ vocabSize: 3000 })];
    const policy = await base.withLora(ADAPTERS);
    const weights = await base.memoryBytes();
    await train(policy);
    await train(whole);
    // The scratch memory is the same but for the adapters' part, and their own weights, gradient and moments are small.
    expect((await whole.memoryBytes()) - (await policy.memoryBytes())).toBeGreaterThan(2.9 * weights);
    expect(await base.memoryBytes()).toBe(weights);
    for (const p of [base, policy, whole]) await p.dispose();
  });

  test("adapters that do not fit make a typed error and leave the weights to their owner", async () => {
    const base = await tinyPolicy({}, { memoryLimit: 4 << 20 });
    const before = await base.logits(prompt);
    for (const rank of [2000, 65536]) {
      await expect(base.withLora({ rank })).rejects.toMatchObject({
        code: "ERR_RLSD_OUT_OF_MEMORY",
        message: expect.stringMatching(
          /^The adapters need \d+ bytes; \d+ of the 4194304 that this model may use are free/,
        ),
      });
    }
    expect(await base.logits(prompt)).toEqual(before);
    // Nobody else reads the weights: they may be changed, and adapters that fit stand on what they are then.
    await base.writeParameter("model.norm.weight", new Float32Array(24).fill(0.5));
    const policy = await base.withLora(ADAPTERS);
    expect(await policy.logits(prompt)).toEqual(await base.logits(prompt));
    await base.dispose();
    await policy.dispose();
  });
});
