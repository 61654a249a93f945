import { cpSync, mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadPolicy } from "../lib/index.js";
import { adapted } from "./support/lora.js";
import { BASE, copyOfPeft, PEFT, setConfig, setTensors, WEIGHTS } from "./support/peft.js";
import type { HostTensor } from "./support/safetensors.js";
import { ids, prompts, temporaryFolder } from "./support/small-policy.js";

const prompt = ids(3, 14, 15, 9, 26);
const FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";

async function logitsOf(directory: string): Promise<Float32Array> {
  await using policy = await loadPolicy(directory);
  return await policy.logits(prompt);
}

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

  test.each<[string, (name: string) => string]>([
    ["the adapters' name in them", (name) => name.replace(/\.weight$/, ".default.weight")],
    ["no prefix", (name) => name.replace("base_model.model.", "")],
    ["both", (name) => name.replace("base_model.model.", "").replace(/\.weight$/, ".default.weight")],
  ])("load with names as PEFT has them in memory: %s", async (_, rename) => {
    const directory = copyOfPeft();
    setTensors(directory, (tensors) => {
      for (const [name, tensor] of [...tensors]) tensors.delete(name) && tensors.set(rename(name), tensor);
    });
    expect(await logitsOf(directory)).toEqual(await logitsOf(PEFT));
  });

  test("a folder that has a model too is neither's: a config.json alone is no model", async () => {
    const directory = copyOfPeft();
    cpSync(join(BASE, "config.json"), join(directory, "config.json"));
    expect(await logitsOf(directory)).toEqual(await logitsOf(PEFT));
    cpSync(join(BASE, "model.safetensors"), join(directory, "model-00001-of-00002.safetensors"));
    await expect(loadPolicy(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: `${directory}: holds a model (model-00001-of-00002.safetensors) and adapters (adapter_config.json): move one of them to a folder of its own`,
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
    [
      "weights of the older kind alone",
      (d) => renameSync(join(d, WEIGHTS), join(d, "adapter_model.bin")),
      /adapter_model\.bin: is of a kind that is not read: save_pretrained\(\.\.\., safe_serialization=True\) .* gives adapter_model\.safetensors/,
    ],
    [
      "one tensor by two names",
      (d) => setTensors(d, (t) => t.set(FIRST.replace("lora_A", "lora_A.default"), t.get(FIRST)!)),
      /down_proj\.lora_A\.weight" is there twice, once as "base_model/,
    ],
    [
      "a scale that no number has",
      (d) => setConfig(d, { lora_alpha: 1e300 }),
      /scales the adapters by Infinity in float32/,
    ],
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
      /has no adapter of q_proj, k_proj.*: its first tensor is "base_model\.model\.lm_head\.lora_A\.weight"/,
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
    const message = expect.stringMatching(
      /lm_head\.lora_A\.weight" is no .*: expected names such as "base_model\.model\.model/,
    );
    const refused = { code: "ERR_RLSD_UNSUPPORTED_MODEL", message };
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
