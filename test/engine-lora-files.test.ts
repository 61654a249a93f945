import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, loadPolicy, rowCoefficient } from "../lib/index.js";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../lib/reference/rounding.js";
import { adapted, allOf } from "./support/lora.js";
import { type HostTensor, readTensors, relativeError, writeTensors } from "./support/safetensors.js";
import { ids, prompts, TINY, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const models = join(__dirname, "fixtures/models");
const PEFT = join(models, "qwen2-bias-lora");
const BASE = join(models, "qwen2-bias");
const prompt = ids(3, 14, 15, 9, 26);
const WEIGHTS = "adapter_model.safetensors";
const FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
type Json = Record<string, unknown>;

/** PEFT's folder on a base that is named by its whole path. */
function copyOfPeft(change: Json = {}): string {
  const directory = join(temporaryFolder(), "adapters");
  cpSync(PEFT, directory, { recursive: true });
  setConfig(directory, { base_model_name_or_path: BASE, ...change });
  return directory;
}

const configOf = (directory: string): Json =>
  JSON.parse(readFileSync(join(directory, "adapter_config.json"), "utf8")) as Json;

const setConfig = (directory: string, change: Json): void =>
  writeFileSync(join(directory, "adapter_config.json"), JSON.stringify({ ...configOf(directory), ...change }));

/** Rewrites a folder's tensors. */
function setTensors(directory: string, edit: (tensors: Map<string, HostTensor>) => void): void {
  const tensors = readTensors(join(directory, WEIGHTS));
  edit(tensors);
  writeTensors(join(directory, WEIGHTS), tensors);
}

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
});

describe("adapters of the PEFT library", () => {
  test("load with settings that are off, that say how they were trained, or that are not known", async () => {
    const wanted = await logitsOf(PEFT);
    const directory = copyOfPeft({
      modules_to_save: [],
      rank_pattern: {},
      use_rslora: null,
      lora_dropout: 0.05,
      target_modules: ".*_proj",
      init_lora_weights: "gaussian",
      loftq_config: { loftq_bits: 4 },
      exclude_modules: ["lm_head"],
      setting_of_tomorrow: 3,
    });
    expect(await logitsOf(directory)).toEqual(wanted);
    // As a link to it, too.
    const link = join(temporaryFolder(), "link");
    symlinkSync(directory, link);
    expect(await logitsOf(link)).toEqual(wanted);
  });

  test.each<[string, unknown, string]>([
    ["peft_type", "LOHA", 'expected "LORA"'],
    ["bias", "all", 'expected "none"'],
    ["use_dora", true, "expected false"],
    ["lora_bias", true, "expected false"],
    ["fan_in_fan_out", true, "expected false"],
    ["modules_to_save", ["lm_head"], "expected nothing"],
    ["rank_pattern", { q_proj: 8 }, "expected nothing"],
    ["alpha_pattern", { q_proj: 8 }, "expected nothing"],
    ["layer_replication", [[0, 2]], "expected nothing"],
    ["layers_to_transform", [0], "expected nothing"],
    ["trainable_token_indices", [3], "expected nothing"],
    ["kasa_config", { svd: 1 }, "expected nothing"],
    ["init_lora_weights", "pissa_niter_4", "expected true; save_pretrained(path_initial_model_for_weight_conversion"],
  ])("%s %j is refused by name", async (name, value, expected) => {
    const message = `${name} ${JSON.stringify(value)} is not supported: ${expected}`;
    await expect(loadPolicy(copyOfPeft({ [name]: value }))).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringContaining(`adapter_config.json: ${message}`),
    });
  });

  const surplus: HostTensor = { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) };
  const config = (text: string) => (d: string) => writeFileSync(join(d, "adapter_config.json"), text);
  const cases: [string, (directory: string) => void, RegExp][] = [
    ["r = 0", (d) => setConfig(d, { r: 0 }), /whole number from 1 to 65536 for r but found 0/],
    ["r as text", (d) => setConfig(d, { r: "4" }), /whole number from 1 to 65536 for r but found "4"/],
    ["no r", (d) => setConfig(d, { r: undefined }), /for r but found nothing/],
    ["lora_alpha 0", (d) => setConfig(d, { lora_alpha: 0 }), /a number above 0 for lora_alpha but found 0/],
    ["lora_alpha NaN, as Python writes it", config('{"r":4,"lora_alpha":NaN}'), /adapter_config\.json: is not JSON/],
    ["lora_alpha beyond all numbers", config('{"r":4,"lora_alpha":1e999}'), /for lora_alpha but found Infinity/],
    ["use_rslora as text", (d) => setConfig(d, { use_rslora: "yes" }), /true or false for use_rslora but found "yes"/],
    ["a list for the settings", config("[]"), /adapter_config\.json: expected an object/],
    [
      "a folder for the settings",
      (d) => {
        rmSync(join(d, "adapter_config.json"));
        mkdirSync(join(d, "adapter_config.json"));
      },
      /adapter_config\.json: could not be read/,
    ],
    ["no weights", (d) => rmSync(join(d, WEIGHTS)), /adapter_model\.safetensors: could not be opened/],
    ["weights cut short", (d) => truncateSync(join(d, WEIGHTS), 20_000), /but the file has 20000: truncated/],
    [
      "a rank that its tensors do not have, before memory is taken for it",
      (d) => setConfig(d, { r: 65536 }),
      /"base_model\.model\.[a-z_.0]*lora_A\.weight": expected \[65536, 56\] but found \[4, 56\]/,
    ],
    [
      "a tensor less",
      (d) => setTensors(d, (tensors) => tensors.delete(FIRST)),
      /"base_model\.[a-z_.0]*down_proj\.lora_A\.weight" is missing: expected \[4, 128\], as adapter_config\.json and the model/,
    ],
    [
      "a tensor of another type",
      (d) => setTensors(d, (t) => t.set(FIRST, { ...t.get(FIRST)!, dtype: "I32" })),
      /down_proj\.lora_A\.weight": expected F32, F16 or BF16 but found I32/,
    ],
    [
      "no adapter of a layer's matrices",
      (d) => setTensors(d, (t) => (t.clear() as never) || t.set("base_model.model.lm_head.lora_A.weight", surplus)),
      /has no adapter of q_proj, k_proj/,
    ],
  ];

  test.each(cases)("%s: the file, what was expected and what came are named", async (_, damage, message) => {
    const directory = copyOfPeft();
    damage(directory);
    await expect(loadPolicy(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: expect.stringMatching(message),
    });
  });

  test("a tensor that is not computed is refused by name, also onto a policy", async () => {
    const directory = copyOfPeft();
    setTensors(directory, (tensors) => tensors.set("base_model.model.lm_head.lora_A.weight", surplus));
    const refused = { code: "ERR_RLSD_UNSUPPORTED_MODEL", message: expect.stringContaining("lm_head.lora_A.weight") };
    await expect(loadPolicy(directory)).rejects.toMatchObject(refused);
    const base = await loadPolicy(BASE);
    await expect(base.withAdapters(directory)).rejects.toMatchObject(refused);
    await expect(base.withAdapters(temporaryFolder())).rejects.toThrow(/adapter_config\.json: does not exist/);
    // Nothing of them was left on the weights: they have one reader.
    await base.writeParameter("model.norm.weight", await base.readParameter("model.norm.weight"));
    await base.dispose();
  });

  test("are put onto a policy, in the place of its own, with the same bits as when they are loaded with it", async () => {
    const base = await loadPolicy(BASE);
    const other = await adapted(base, { rank: 2 });
    const wanted = await logitsOf(PEFT);
    for (const under of [base, other]) {
      const policy = await under.withAdapters(PEFT);
      expect(await policy.logits(prompt)).toEqual(wanted);
      await policy.dispose();
    }
    expect(await other.generate(prompts(1), { maxTokens: 2, seed: 0 })).toHaveLength(1);
    await base.dispose();
    await other.dispose();
  });
});
