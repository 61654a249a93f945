import { cpSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type EnginePolicy, loadPolicy, rowCoefficient } from "../lib/index.js";
import { adapted } from "./support/lora.js";
import { ids, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const models = join(__dirname, "fixtures/models");
const prompt = ids(3, 14, 15, 9, 26);
const NORM = "model.norm.weight";

const folder = (): string => join(realpathSync(temporaryFolder()), "model");

/** The model that a save of adapters names; whatever it is, the adapters on it must compute what these do. */
async function named(policy: EnginePolicy): Promise<unknown> {
  const directory = folder();
  await policy.save(directory);
  const json = JSON.parse(readFileSync(join(directory, "adapter_config.json"), "utf8")) as Record<string, unknown>;
  const base = json.base_model_name_or_path;
  if (base !== null) {
    await using again = await loadPolicy(directory);
    expect(await again.logits(prompt)).toEqual(await policy.logits(prompt));
  }
  return base;
}

async function namedUnder(base: EnginePolicy): Promise<unknown> {
  await using policy = await adapted(base, { rank: 2 });
  return await named(policy);
}

async function step(policy: EnginePolicy): Promise<void> {
  const batch = { sequences: [{ prompt, completion: ids(1, 2) }], advantages: new Float32Array(2).fill(-1) };
  await policy.accumulate(batch, rowCoefficient({ reduction: "token-sum" }));
  await policy.step({ learningRate: 0.1 });
}

async function change(policy: EnginePolicy): Promise<void> {
  await policy.writeParameter(
    NORM,
    (await policy.readParameter(NORM)).map((x) => 2 * x),
  );
}

describe("saved adapters name the folder that has the weights under them", () => {
  let base: EnginePolicy;
  let home: string;
  beforeEach(async () => {
    base = await tinyPolicy();
    home = folder();
  });
  afterEach(() => base.dispose());

  test("and none for a model that was never saved: the option base says which it is", async () => {
    await using policy = await adapted(base, { rank: 2 });
    expect(await named(policy)).toBe(null);
    const directory = folder();
    await policy.save(directory);
    await expect(loadPolicy(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: expect.stringMatching(/does not name the model that it stands on: say where the model is by .*"base"/),
    });
    await base.save(home);
    await using again = await loadPolicy(directory, { base: home });
    expect(await again.logits(prompt)).toEqual(await policy.logits(prompt));
    expect(await named(again)).toBe(home);
  });

  test("whether it was saved before or after they were put on it, and through what shares or copies it", async () => {
    await using before = await adapted(base, { rank: 2 });
    await base.save(home);
    expect(await named(before)).toBe(home);
    expect(await namedUnder(base)).toBe(home);
    await using copy = await base.snapshot();
    await using shared = await before.base();
    await using snapshot = await before.snapshot();
    expect([await namedUnder(copy), await namedUnder(shared), await named(snapshot)]).toEqual([home, home, home]);
    // The copy's weights are its own: what becomes of them is nothing to the others.
    await change(copy);
    expect([await namedUnder(copy), await named(before)]).toEqual([null, home]);
  });

  test.each<[string, (policy: EnginePolicy) => Promise<void>]>([
    ["a step", step],
    ["a parameter that was written", change],
    [
      "weights of another",
      async (policy) => {
        await using other = await tinyPolicy({}, { seed: 4 });
        await policy.copyFrom(other, 0.5);
      },
    ],
  ])("no more after %s, until it is saved again", async (_, changed) => {
    await base.save(home);
    await changed(base);
    expect(await namedUnder(base)).toBe(null);
    await base.save(home);
    expect(await namedUnder(base)).toBe(home);
  });

  test("also after a change that was refused", async () => {
    await base.save(home);
    await using policy = await adapted(base, { rank: 2 });
    await expect(change(base)).rejects.toThrow(/Other policies read these weights/);
    await expect(step(base)).rejects.toThrow(/Other policies read these weights/);
    await using other = await tinyPolicy({}, { seed: 4 });
    await expect(base.copyFrom(other)).rejects.toThrow(/Other policies read/);
    expect([await named(policy), await namedUnder(base)]).toEqual([home, home]);
  });

  test("not where the save rounded them", async () => {
    await base.save(home, { dtype: "bf16" });
    expect(await namedUnder(base)).toBe(null);
    await base.save(home);
    const rounded = folder();
    await base.save(rounded, { dtype: "bf16" });
    expect(await namedUnder(base)).toBe(home);
    await using loaded = await loadPolicy(rounded);
    expect(await namedUnder(loaded)).toBe(rounded);
    await base.save(home, { dtype: "f16" });
    expect(await namedUnder(base)).toBe(null);
  });

  test("not where another model was saved over them, by a link to the folder or a sum with the adapters", async () => {
    await base.save(home);
    await using policy = await adapted(base, { rank: 2 });
    expect(await named(policy)).toBe(home);
    const link = folder();
    symlinkSync(home, link);
    await using merged = await policy.merge();
    await merged.save(link);
    expect([await named(policy), await namedUnder(base)]).toEqual([null, null]);
    expect(await namedUnder(merged)).toBe(home);
  });

  test("by its real path, which a link that is set elsewhere does not change", async () => {
    await base.save(home);
    const link = folder();
    symlinkSync(home, link);
    await using loaded = await loadPolicy(link);
    expect(await namedUnder(loaded)).toBe(home);
  });

  test("the newest that is still there, where there are several", async () => {
    await base.save(home);
    await using policy = await adapted(base, { rank: 2 });
    const later = folder();
    await base.save(later);
    expect(await named(policy)).toBe(later);
    rmSync(later, { recursive: true });
    expect(await named(policy)).toBe(home);
    rmSync(home, { recursive: true });
    expect(await named(policy)).toBe(null);
  });

  test("not where a save failed before it touched the folder: that still has them", async () => {
    await base.save(home);
    await using other = await tinyPolicy({}, { seed: 4 });
    const last = other.parameterNames.at(-1)!;
    await other.writeParameter(last, (await other.readParameter(last)).fill(1e6));
    await expect(other.save(home, { dtype: "f16" })).rejects.toMatchObject({ code: "ERR_RLSD_SAVE" });
    expect(await namedUnder(base)).toBe(home);
  });
});

describe("the model that adapters name", () => {
  const copyOf = (name: string, parent: string): string => {
    cpSync(join(models, name), join(parent, name), { recursive: true });
    return join(parent, name);
  };

  test("is found beside them by a relative path, and moves with them", async () => {
    const parent = temporaryFolder();
    copyOf("qwen3-tied", parent);
    const adapters = copyOf("qwen3-tied-lora", parent);
    await using policy = await loadPolicy(adapters);
    const logits = await policy.logits(prompt);
    const elsewhere = join(temporaryFolder(), "moved");
    renameSync(parent, elsewhere);
    await using again = await loadPolicy(join(elsewhere, "qwen3-tied-lora"));
    expect(await again.logits(prompt)).toEqual(logits);
  });

  test("is named with the way out where it is not there, and the option base is that", async () => {
    const parent = temporaryFolder();
    const adapters = copyOf("qwen3-tied-lora", parent);
    const config = join(adapters, "adapter_config.json");
    const say = (name: unknown): void =>
      writeFileSync(
        config,
        JSON.stringify({ ...JSON.parse(readFileSync(config, "utf8")), base_model_name_or_path: name }),
      );
    const empty = join(parent, "empty");
    mkdirSync(empty);
    process.env.HF_HUB_CACHE = empty;
    for (const name of ["../qwen3-tied", "Qwen/Qwen3-0.6B", "../empty", "../qwen3-tied-lora"]) {
      say(name);
      await expect(loadPolicy(adapters)).rejects.toMatchObject({
        code: "ERR_RLSD_MODEL_FILE",
        message: `${config}: stands on ${name}, which is no model folder here, nor in ${empty}: say where the model is by the option "base" (--base), or in ${config} as "base_model_name_or_path"`,
      });
    }
    for (const name of [3, "", null]) {
      say(name);
      await expect(loadPolicy(adapters)).rejects.toThrow(/does not name the model that it stands on: say where/);
    }
    await using policy = await loadPolicy(adapters, { base: join(models, "qwen3-tied") });
    await using wanted = await loadPolicy(join(models, "qwen3-tied-lora"));
    expect(await policy.logits(prompt)).toEqual(await wanted.logits(prompt));
  });

  test.each<[unknown, string, RegExp]>([
    [join(models, "llama-gqa"), "ERR_RLSD_MODEL_FILE", /expected \[4, \d+\] but found \[4, 64\]/],
    [join(models, "nowhere"), "ERR_RLSD_MODEL_FILE", /nowhere: does not exist: expected a Hugging Face/],
    [join(models, "qwen2-bias-lora"), "ERR_RLSD_MODEL_FILE", /qwen2-bias-lora.config\.json: does not exist/],
    [7, "ERR_RLSD_INVALID_ARGUMENT", /a path for base but received 7/],
  ])("by the option base is refused where it does not fit: %j", async (base, code, message) => {
    await expect(loadPolicy(join(models, "qwen3-tied-lora"), { base: base as string })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test("is no option of a model's folder", async () => {
    await expect(loadPolicy(join(models, "qwen3-tied"), { base: models })).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(/"base" is for a folder of adapters, but .*qwen3-tied is none/),
    });
  });
});
