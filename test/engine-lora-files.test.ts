import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createPolicy, type EnginePolicy, loadPolicy, rowCoefficient } from "../lib/index.js";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../lib/rounding.js";
import { allOf } from "./support/lora.js";
import { BASE, configOf, models, PEFT, WEIGHTS } from "./support/peft.js";
import { readTensors, relativeError } from "./support/safetensors.js";
import { ids, TINY, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const prompt = ids(3, 14, 15, 9, 26);

const filesOf = (directory: string): Map<string, Buffer> =>
  new Map(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name))]));

async function logitsOf(directory: string, base?: string): Promise<Float32Array> {
  await using policy = await loadPolicy(directory, { base });
  return await policy.logits(prompt);
}

describe("saving and loading", () => {
  test("training goes on as if it had never stopped, in PEFT's files", async () => {
    const batch = { sequences: [{ prompt, completion: ids(1, 2, 3, 4) }], advantages: new Float32Array(4).fill(-1) };
    const train = async (policy: EnginePolicy, steps: number): Promise<void> => {
      for (let i = 0; i < steps; i++) {
        await policy.accumulate(batch, rowCoefficient({ reduction: "token-sum" }));
        await policy.step({ learningRate: 0.01 });
      }
    };
    const straight = await loadPolicy(PEFT);
    await train(straight, 2);
    const directory = join(temporaryFolder(), "saved");
    await straight.save(directory, { optimizer: true });
    const resumed = await loadPolicy(directory);
    expect(resumed.lora).toEqual(straight.lora);
    expect(await allOf(resumed)).toEqual(await allOf(straight));
    await resumed.loadOptimizer(directory);
    await train(straight, 2);
    await train(resumed, 2);
    expect(await allOf(resumed)).toEqual(await allOf(straight));
    expect(await resumed.logits(prompt)).toEqual(await straight.logits(prompt));
    const shapes = (file: string) => new Map([...readTensors(file)].map(([name, { shape }]) => [name, shape]));
    expect(shapes(join(directory, WEIGHTS))).toEqual(shapes(join(PEFT, WEIGHTS)));
    const { target_modules: targets, ...config } = configOf(directory);
    const { target_modules: wanted, ...peft } = configOf(PEFT);
    expect(peft).toMatchObject({ ...config, base_model_name_or_path: "../qwen2-bias" });
    expect([...(targets as string[])].sort()).toEqual(wanted);
    expect(config.base_model_name_or_path).toBe(BASE);
    const names = ["adapter_config.json", WEIGHTS, "generation_config.json", "optimizer.safetensors"];
    expect(readdirSync(directory).sort()).toEqual(names);
    // A later save without an optimizer leaves none that belongs to other adapters.
    await resumed.save(directory);
    expect(readdirSync(directory).sort()).toEqual(names.slice(0, 3));
    await straight.dispose();
    await resumed.dispose();
  });

  test.each([
    ["bf16", "BF16", (x: number) => bf16Value(bf16Bits(x))],
    ["f16", "F16", (x: number) => f16Value(f16Bits(x))],
  ] as const)("%s adapters are written rounded and load as they are", async (dtype, type, round) => {
    const policy = await loadPolicy(PEFT);
    const directory = temporaryFolder();
    await policy.save(directory, { dtype });
    for (const { dtype: found } of readTensors(join(directory, WEIGHTS)).values()) expect(found).toBe(type);
    const again = await loadPolicy(directory);
    expect(await allOf(again)).toEqual((await allOf(policy)).map((part) => part.map(round)));
    await policy.dispose();
    await again.dispose();
  });

  test("rank-stabilised adapters stay so", async () => {
    const policy = await loadPolicy(join(models, "qwen3-tied-lora"));
    const directory = temporaryFolder();
    await policy.save(directory);
    expect(configOf(directory)).toMatchObject({ use_rslora: true, r: 4, lora_alpha: 6 });
    expect(await logitsOf(directory)).toEqual(await policy.logits(prompt));
    await policy.dispose();
  });

  test("merged adapters are saved as a model that needs no base", async () => {
    const policy = await loadPolicy(PEFT);
    const merged = await policy.merge();
    const directory = temporaryFolder();
    await merged.save(directory);
    expect(readdirSync(directory).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
    const logits = await logitsOf(directory);
    expect(logits).toEqual(await merged.logits(prompt));
    expect(relativeError(logits, await policy.logits(prompt))).toBeLessThan(2e-5);
    await policy.dispose();
    await merged.dispose();
  });

  test("the tokenizer is the adapters' own where they have one, and what ends a text stays the model's", async () => {
    const names = ["tokenizer.json", "tokenizer_config.json"];
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(models, "tokenizer-bpe", name))]));
    files["generation_config.json"] = Buffer.from('{"eos_token_id":[7,8]}');
    files["chat_template.jinja"] = Buffer.from("theirs");
    const base = await createPolicy({ ...TINY, vocabSize: 359, endTokenIds: [7, 8] }, { files });
    const [model, directory, merged] = [temporaryFolder(), temporaryFolder(), temporaryFolder()];
    await base.save(model);
    const policy = await base.withLora({ rank: 1 });
    await policy.save(directory);
    expect(readFileSync(join(directory, "tokenizer.json"))).toEqual(files["tokenizer.json"]);
    rmSync(join(directory, "chat_template.jinja"));
    writeFileSync(join(directory, "generation_config.json"), '{"eos_token_id":1}');
    writeFileSync(join(directory, "tokenizer_config.json"), '{"chat_template":"own"}');
    const own = await loadPolicy(directory);
    expect([own.endTokenIds, own.tokenizer === undefined]).toEqual([[7, 8], false]);
    await (await own.merge()).save(merged);
    expect(readFileSync(join(merged, "generation_config.json"))).toEqual(files["generation_config.json"]);
    expect(readFileSync(join(merged, "tokenizer_config.json"), "utf8")).toBe('{"chat_template":"own"}');
    expect(readdirSync(merged)).not.toContain("chat_template.jinja");
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) rmSync(join(directory, name));
    const bare = await loadPolicy(directory);
    expect(bare.tokenizer!.encode("The answer")).toEqual(base.tokenizer!.encode("The answer"));
    for (const p of [base, policy, own, bare]) await p.dispose();
  });

  test("a model's folder takes no adapters and theirs no model: the old files stay whole", async () => {
    const base = await tinyPolicy();
    const policy = await base.withLora({ rank: 1 });
    const [model, adapters] = [temporaryFolder(), temporaryFolder()];
    await base.save(model);
    await policy.save(adapters);
    const before = [filesOf(model), filesOf(adapters)];
    await expect(policy.save(model)).rejects.toMatchObject({
      code: "ERR_RLSD_SAVE",
      message: `${model} holds a model: save adapters to a folder of their own.`,
    });
    await expect(base.save(adapters)).rejects.toMatchObject({
      code: "ERR_RLSD_SAVE",
      message: `${adapters} holds adapters: save a model to a folder of its own.`,
    });
    expect([filesOf(model), filesOf(adapters)]).toEqual(before);
    await base.dispose();
    await policy.dispose();
  });

  test("of a model and its adapters that are saved to one new folder at once, one is", async () => {
    const base = await tinyPolicy();
    const policy = await base.withLora({ rank: 1 });
    for (let round = 0; round < 4; round++) {
      const folder = join(temporaryFolder(), "both");
      const order = round % 2 === 0 ? [base, policy] : [policy, base];
      const results = await Promise.allSettled(order.map((p) => p.save(folder)));
      const reasons = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
      expect(reasons).toEqual([
        expect.objectContaining({
          code: "ERR_RLSD_SAVE",
          message: expect.stringMatching(/to a folder of (its|their) own/),
        }),
      ]);
      const names = readdirSync(folder);
      expect(names.includes("config.json")).toBe(!names.includes("adapter_config.json"));
      expect(readdirSync(dirname(folder))).toEqual(["both"]);
    }
    await base.dispose();
    await policy.dispose();
  });
});
