import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  createPolicy,
  type EnginePolicy,
  loadPolicy,
  type ModelConfig,
  type ModelType,
  type Multipliers,
  type NewModelConfig,
} from "../lib/index.js";
import { parseConfig } from "../lib/policy/config.js";
import { completeConfig } from "../lib/policy/new-config.js";
import { GEMMA, GRANITE, ids, OLMO2, PHI3, TINY, temporaryFolder } from "./support/small-policy.js";

/** Its files say all of it: what is read from them has the same shape and computes the same bits. */
async function expectKept(made: EnginePolicy): Promise<void> {
  const folder = join(temporaryFolder(), "model");
  await made.save(folder);
  await using read = await loadPolicy(folder);
  expect(read.config).toEqual(made.config);
  const tokens = ids(1, 2, 3, 4, 5, 6, 7, 8);
  expect(await read.logits(tokens)).toEqual(await made.logits(tokens));
}

describe("a new model", () => {
  const weights = (policy: EnginePolicy): Promise<Float32Array> =>
    policy.readParameter("model.layers.1.mlp.up_proj.weight");

  test("has normal matrices, norms of 1, biases of 0 and is a function of its seed", async () => {
    const config = { ...TINY, hiddenSize: 64, intermediateSize: 200, attentionBias: true };
    const a = await createPolicy(config, { seed: 3, deviation: 0.05 });
    const b = await createPolicy(config, { seed: 3, deviation: 0.05 });
    const c = await createPolicy(config, { seed: 4, deviation: 0.05 });
    const w = await weights(a);
    expect(await weights(b)).toEqual(w);
    expect(await weights(c)).not.toEqual(w);
    const mean = w.reduce((x, y) => x + y, 0) / w.length;
    const deviation = Math.sqrt(w.reduce((x, y) => x + (y - mean) ** 2, 0) / w.length);
    expect(Math.abs(mean)).toBeLessThan(0.05 * 0.05);
    // Five standard errors, here and below, of what so many normal numbers give.
    expect(Math.abs(deviation / 0.05 - 1)).toBeLessThan(5 / Math.sqrt(2 * w.length));
    // Three deviations hold 99.73 % of a normal distribution.
    const beyond = w.filter((x) => Math.abs(x) > 0.15).length / w.length;
    expect(Math.abs(beyond - 0.0027)).toBeLessThan(5 * Math.sqrt(0.0027 / w.length));
    const down = await a.readParameter("model.layers.1.mlp.down_proj.weight");
    const downDeviation = Math.sqrt(down.reduce((x, y) => x + y * y, 0) / down.length);
    expect(Math.abs(downDeviation / 0.025 - 1)).toBeLessThan(5 / Math.sqrt(2 * down.length));
    expect(new Set(await a.readParameter("model.norm.weight"))).toEqual(new Set([1]));
    expect(new Set(await a.readParameter("model.layers.0.self_attn.q_proj.bias"))).toEqual(new Set([0]));
    expect(a.parameterCount).toBe(
      2 * 37 * 64 + 2 * (64 * 64 * 2 + 2 * 32 * 64 + 3 * 64 * 200 + 128 + 64 + 64 + 64) + 64,
    );
    for (const policy of [a, b, c]) await policy.dispose();
  });

  test.each([
    [undefined, 4],
    [2, 2],
    [0, undefined],
  ])("of SmolLM3 with noRopeInterval %j is what its files say", async (noRopeInterval, expected) => {
    const shape = { ...TINY, modelType: "smollm3" as const, numLayers: 4, mlpBias: true, noRopeInterval };
    await using made = await createPolicy(shape, { seed: 2, deviation: 0.3 });
    expect(made.config.noRopeInterval).toBe(expected);
    const folder = join(temporaryFolder(), "model");
    await made.save(folder);
    await using read = await loadPolicy(folder);
    expect(read.config).toEqual(made.config);
    const request = [{ prompt: Int32Array.of(1, 2, 3), completion: Int32Array.of(4, 5, 6) }];
    expect(await read.score(request)).toEqual(await made.score(request));
    await using rotated = await createPolicy({ ...shape, noRopeInterval: 0 }, { seed: 2, deviation: 0.3 });
    expect((await rotated.score(request)).flat().toString() === (await made.score(request)).flat().toString()).toBe(
      expected === undefined,
    );
  });

  test.each<[ModelType, boolean[] | undefined, boolean[]]>([
    ["mistral", undefined, [true, true, true, true]],
    ["qwen2", undefined, [true, true, true, true]],
    ["qwen2", [false, false, true, true], [false, false, true, true]],
    ["qwen3", [true, false, false, true], [true, false, false, true]],
    ["smollm3", [false, true, false, false], [false, true, false, false]],
    ["phi3", undefined, [true, true, true, true]],
    ["gemma3_text", undefined, [true, true, true, true]],
    ["olmo3", undefined, [true, true, true, false]],
    ["olmo3", [false, true, true, false], [false, true, true, false]],
    ["gemma3_text", [false, true, true, false], [false, true, true, false]],
  ])("of %s with a window in layers %j is what its files say", async (modelType, layers, expected) => {
    const shape = { ...TINY, modelType, numLayers: 4, slidingWindow: { size: 3, layers } };
    await using made = await createPolicy(shape, { seed: 2, deviation: 0.3 });
    expect(made.config.slidingWindow).toEqual({ size: 3, layers: expected });
    await expectKept(made);
    const plain = { ...TINY, modelType, numLayers: 4 };
    await using wide = await createPolicy({ ...plain, slidingWindow: { size: 8 } }, { seed: 2, deviation: 0.3 });
    await using none = await createPolicy(plain, { seed: 2, deviation: 0.3 });
    expect(none.config.slidingWindow).toBeUndefined();
    const tokens = ids(1, 2, 3, 4, 5, 6, 7, 8);
    expect(await wide.logits(tokens)).toEqual(await none.logits(tokens));
    expect(await made.logits(tokens)).not.toEqual(await none.logits(tokens));
  });

  test.each<[Partial<NewModelConfig>, Partial<ModelConfig>]>([
    [{}, { queryScalar: 6, localRope: { type: "default", theta: 1e4 } }],
    [GEMMA, { queryScalar: 9, localRope: { type: "default", theta: 50 } }],
  ])("of Gemma 3 is what its files say, and its norms multiply by 1: %#", async (change, expected) => {
    const shape = { ...TINY, modelType: "gemma3_text" as const, attentionBias: true, ...change };
    await using made = await createPolicy(shape, { seed: 2, deviation: 0.3 });
    expect(made.config).toMatchObject({ qkNorm: true, qkvBias: true, mlpBias: false, ...expected });
    const norms = made.parameterNames.filter((name) => name.endsWith("norm.weight"));
    expect(norms).toHaveLength(2 * 6 + 1);
    for (const name of norms) expect(new Set(await made.readParameter(name))).toEqual(new Set([0]));
    await expectKept(made);
  });

  test.each<[string, Partial<NewModelConfig>, Partial<ModelConfig>, number]>([
    ["olmo2", OLMO2, { qkNorm: true, qkvBias: false, normEps: 1e-6, numKvHeads: 2 }, 2 * 4 + 1],
    [
      "olmo2 with biases",
      { ...OLMO2, attentionBias: true, numKvHeads: undefined },
      { outputBias: true, numKvHeads: 4 },
      9,
    ],
    ["granite", { ...GRANITE, mlpBias: true }, { mlpBias: true, multipliers: GRANITE.multipliers as Multipliers }, 5],
    [
      "granite by default",
      { modelType: "granite", headDim: 16, multipliers: { residual: 0.5, logitsScaling: undefined } as never },
      { multipliers: { embedding: 1, attention: 0.25, residual: 0.5, logitsScaling: 1 } },
      5,
    ],
    ["phi3", PHI3, { rotaryDim: 6, qkvBias: false, tieEmbeddings: false }, 5],
    ["phi3 by default", { ...PHI3, rotaryDim: undefined }, { rotaryDim: 10 }, 5],
  ])("of %s is what its files say", async (_, change, expected, norms) => {
    await using made = await createPolicy({ ...TINY, ...change }, { seed: 2, deviation: 0.3 });
    expect(made.config).toMatchObject(expected);
    expect(made.parameterNames.filter((name) => name.endsWith("norm.weight"))).toHaveLength(norms);
    await expectKept(made);
  });

  test("of phi3 has rotated parts of every width that there is", async () => {
    for (let headDim = 2; headDim <= 256; headDim += 2) {
      for (let rotaryDim = 2; rotaryDim <= headDim; rotaryDim += 2) {
        const json = completeConfig({ ...TINY, modelType: "phi3", headDim, rotaryDim });
        expect(parseConfig(JSON.parse(JSON.stringify(json)) as Record<string, unknown>).rotaryDim).toBe(rotaryDim);
      }
    }
  });

  test.each(["f32", "bf16"] as const)("of phi3 has a llama's matrices, and its bits: products of %s", async (type) => {
    await using llama = await createPolicy(TINY, { seed: 2, deviation: 0.3, matmulType: type });
    await using phi = await createPolicy({ ...TINY, modelType: "phi3" }, { seed: 3, matmulType: type });
    const parts: Record<string, string[]> = {
      "self_attn.qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
    };
    for (const name of phi.parameterNames) {
      const [, before, matrix] = /^(model\.layers\.\d+\.)?(.*)\.weight$/.exec(name) as unknown as [
        string,
        string,
        string,
      ];
      const rows = (parts[matrix] ?? [matrix]).map((part) => llama.readParameter(`${before ?? ""}${part}.weight`));
      await phi.writeParameter(name, Float32Array.from((await Promise.all(rows)).flatMap((values) => [...values])));
    }
    const tokens = ids(1, 2, 3, 4, 5, 6, 7, 8);
    expect(await phi.logits(tokens)).toEqual(await llama.logits(tokens));
    expect(phi.parameterCount).toBe(llama.parameterCount);
  });

  test.each(["embedding", "attention", "residual", "logitsScaling"] as const)(
    "of granite has a multiplier %s that counts",
    async (name) => {
      const logits: Float32Array[] = [];
      for (const value of [0.5, 0.8]) {
        const multipliers = { ...GRANITE.multipliers, [name]: value };
        await using policy = await createPolicy({ ...TINY, ...GRANITE, multipliers }, { seed: 2, deviation: 0.3 });
        logits.push(await policy.logits(ids(1, 2, 3, 4)));
      }
      expect(logits[0]).not.toEqual(logits[1]);
    },
  );

  test("has no padding id in its files, for which a reader would take one beyond its vocabulary", async () => {
    await using made = await createPolicy({ ...TINY, modelType: "smollm3" });
    const folder = temporaryFolder();
    await made.save(folder);
    const json = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
    expect([json.pad_token_id, json.bos_token_id]).toEqual([null, null]);
  });

  test("sees no token before its windows", async () => {
    const shape = { ...TINY, modelType: "mistral" as const, slidingWindow: { size: 4 } };
    await using policy = await createPolicy(shape, { seed: 2, deviation: 0.3 });
    const tokens = Int32Array.from({ length: 90 }, (_, i) => (7 * i) % 37);
    const before = await policy.logits(tokens);
    tokens[70] = 36;
    const after = await policy.logits(tokens);
    // Each of the two layers reaches three tokens back.
    const changed = tokens.map((_, i) =>
      Number(before.slice(37 * i, 37 * (i + 1)).join() !== after.slice(37 * i, 37 * (i + 1)).join()),
    );
    expect([changed.indexOf(1), changed.lastIndexOf(1)]).toEqual([70, 76]);
  });

  test("takes undefined for what may be left out", async () => {
    const sizes = { vocabSize: 8, hiddenSize: 8, numLayers: 1, numHeads: 2, maxLength: 8 };
    const absent = { modelType: undefined, numKvHeads: undefined, headDim: undefined, rope: undefined };
    const rest = { intermediateSize: undefined, normEps: undefined, tieEmbeddings: undefined, mlpBias: undefined };
    const given = await createPolicy({ ...sizes, ...absent, ...rest, endTokenIds: undefined }, { seed: undefined });
    const bare = await createPolicy(sizes);
    expect(given.config).toEqual(bare.config);
    await given.dispose();
    await bare.dispose();
  });

  test.each([
    [{ hiddenSize: undefined }, /hidden_size/],
    [{ numHeads: 5 }, /head|num_attention_heads/],
    [{ hiddenDim: 3 }, /Unknown field config.hiddenDim/],
    [{ modelType: "gpt2" }, /model_type "gpt2"/],
    [{ noRopeInterval: 2 }, /nothing, but in a smollm3, for config.noRopeInterval/],
    [{ modelType: "smollm3", noRopeInterval: 1.5 }, /config.noRopeInterval/],
    [{ localRope: { type: "default", theta: 3 } }, /nothing, but in a gemma3_text or an olmo3, for config.localRope/],
    [{ modelType: "qwen3", queryScalar: 3 }, /nothing, but in a gemma3_text, for config.queryScalar/],
    [{ modelType: "gemma3_text", queryScalar: 0 }, /at least 1 for config.queryScalar/],
    [{ modelType: "gemma3_text", localRope: { type: "default" } }, /config.localRope.theta/],
    [{ rotaryDim: 4 }, /nothing, but in a phi3, for config.rotaryDim/],
    [{ modelType: "phi3", rotaryDim: 3 }, /partial_rotary_factor 0.5 of head_dim 6 is not supported: expected an even/],
    [{ modelType: "phi3", rotaryDim: 8 }, /expected an even number of 2 to 6 to be rotated/],
    [{ modelType: "phi3", rope: { type: "linear", theta: 100, factor: 2 } }, /rope type "linear" is not supported/],
    [{ modelType: "phi3", rope: { type: "longrope", theta: 1 } }, /another type for a new model for config.rope.type/],
    [{ multipliers: { residual: 0.5 } }, /nothing, but in a granite, for config.multipliers/],
    [{ modelType: "granite", multipliers: { logits: 8 } }, /Unknown field config.multipliers.logits/],
    [{ modelType: "granite", multipliers: { residual: 0 } }, /above 0 for config.multipliers.residual/],
    [
      { modelType: "olmo2", slidingWindow: { size: 4 } },
      /"sliding_attention" is not supported in models of type olmo2/,
    ],
    [{ slidingWindow: { size: 4 } }, /"sliding_attention" is not supported in models of type llama/],
    [
      { modelType: "mistral", slidingWindow: { size: 4, layers: [true, false] } },
      /layer_types and sliding_window say different things/,
    ],
    [{ modelType: "qwen2", slidingWindow: { size: 4, layers: [true] } }, /expected a list of 2 for layer_types/],
    [{ modelType: "qwen2", slidingWindow: { size: 0 } }, /at least 1 for config.slidingWindow.size/],
    [
      { modelType: "qwen2", slidingWindow: { size: 4, layers: [1, 0] } },
      /a boolean for config.slidingWindow.layers\[0\]/,
    ],
    [{ modelType: "qwen2", slidingWindow: { length: 4 } }, /Unknown field config.slidingWindow.length/],
  ])("with %j is refused", async (change, message) => {
    await expect(createPolicy({ ...TINY, ...change } as never)).rejects.toThrow(message);
  });
});
