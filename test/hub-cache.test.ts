import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { hubCache } from "../lib/hub-cache.js";
import { loadChatTemplate, loadPolicy, loadTokenizer } from "../lib/index.js";
import { readConfigFile } from "../lib/trainer/config-file.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { runCli } from "./support/cli.js";

const CLOCK = resolve(__dirname, "../assets/clock");
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const NAME = "makers/clock-0.1B";

/** A cache as `hf download` leaves it: files are links to blobs, and refs/main names the snapshot. */
function cacheOf(source: string): { cache: string; snapshot: string } {
  const cache = mkdtempSync(join(tmpdir(), "rlsd-hub-"));
  const folder = join(cache, "models--makers--clock-0.1B");
  const snapshot = join(folder, "snapshots", COMMIT);
  const blobs = join(folder, "blobs");
  for (const made of [snapshot, join(folder, "refs")]) mkdirSync(made, { recursive: true });
  cpSync(source, blobs, { recursive: true });
  for (const [i, name] of readdirSync(blobs).entries()) {
    renameSync(join(blobs, name), join(blobs, `blob${i}`));
    symlinkSync(join("..", "..", "blobs", `blob${i}`), join(snapshot, name));
  }
  writeFileSync(join(folder, "refs", "main"), `${COMMIT}\n`);
  return { cache, snapshot };
}

const { cache, snapshot } = cacheOf(CLOCK);
const before = process.env.HF_HUB_CACHE;
beforeAll(() => {
  process.env.HF_HUB_CACHE = cache;
});
afterAll(() => {
  if (before === undefined) delete process.env.HF_HUB_CACHE;
  else process.env.HF_HUB_CACHE = before;
});

test("the cache is where the Hugging Face libraries have it", () => {
  const usual = join(homedir(), ".cache", "huggingface", "hub");
  expect([hubCache({}), hubCache({ HF_HOME: "" })]).toEqual([usual, usual]);
  expect(hubCache({ XDG_CACHE_HOME: "/c" })).toBe("/c/huggingface/hub");
  expect(hubCache({ HF_HOME: "~/h", XDG_CACHE_HOME: "/c" })).toBe(join(homedir(), "h", "hub"));
  expect(hubCache({ HUGGINGFACE_HUB_CACHE: "/old", HF_HOME: "/h" })).toBe("/old");
  expect(hubCache({ HF_HUB_CACHE: "/new", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/new");
});

describe("a model in the cache goes by its name", () => {
  test("where a policy, a tokenizer or a template is loaded", async () => {
    await using policy = await loadPolicy(NAME);
    expect(policy.parameterCount).toBe(88384);
    expect((await loadTokenizer(NAME)).size).toBe(policy.tokenizer!.size);
    expect(await loadChatTemplate(NAME)).toBeDefined();
  });

  test("where adapters name it, as those of PEFT do", async () => {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-hub-lora-"));
    await using model = await loadPolicy(NAME);
    await using adapted = await model.withLora({ rank: 2 });
    await adapted.save(folder);
    const config = join(folder, "adapter_config.json");
    const json = JSON.parse(readFileSync(config, "utf8"));
    writeFileSync(config, JSON.stringify({ ...json, base_model_name_or_path: NAME }));
    await using again = await loadPolicy(folder);
    expect(again.lora?.rank).toBe(2);
    expect(again.tokenizer!.size).toBe(model.tokenizer!.size);
    writeFileSync(config, JSON.stringify({ ...json, base_model_name_or_path: "makers/other" }));
    await expect(loadPolicy(folder)).rejects.toThrow(
      `stands on makers/other, which is no model folder here, nor in ${cache}`,
    );
    await using given = await loadPolicy(folder, { base: NAME });
    expect(given.lora?.rank).toBe(2);
  });

  test("in a run's settings, from a file too; the run keeps the snapshot", async () => {
    const { data } = exampleSettings();
    const file = join(mkdtempSync(join(tmpdir(), "rlsd-hub-file-")), "run.json");
    const rollout = { maxTokens: 32 };
    writeFileSync(file, JSON.stringify({ model: NAME, data, rollout, teacher: { kind: "external", model: NAME } }));
    const settings = await readConfigFile(file);
    expect(settings).toMatchObject({ model: NAME, teacher: { model: NAME } });
    const { config } = await dryRun(settings);
    expect([config.model, config.teacher.model]).toEqual([snapshot, snapshot]);
    // A folder of that name beside the file goes first, and what is nowhere stays a path.
    mkdirSync(join(file, "..", NAME), { recursive: true });
    expect((await readConfigFile(file)).model).toBe(join(file, "..", NAME));
    writeFileSync(file, JSON.stringify({ model: "makers/other" }));
    expect((await readConfigFile(file)).model).toBe(join(file, "..", "makers/other"));
  });

  test("on the command line", () => {
    const asked = ["generate", NAME, "Clock at 2, then + 8.", "--set", "rollout.maxTokens=4", "--json"];
    const { status, stdout } = runCli(asked, tmpdir(), { HF_HUB_CACHE: cache });
    expect([status, JSON.parse(stdout).tokens ?? stdout]).toEqual([0, expect.anything()]);
  });
});

test("what is not there is named with the cache, and how to fetch it; names reach out of it nowhere", async () => {
  const file = join(mkdtempSync(join(tmpdir(), "rlsd-hub-weights-")), "model.bin");
  writeFileSync(file, "PK");
  const names = ["makers/other", "../makers/clock-0.1B", "makers/..", "a/b/c", "makers/clock-0.1B/", file];
  for (const load of [loadPolicy, loadTokenizer, loadChatTemplate]) {
    for (const name of names) {
      const what = name === file ? "is a file" : "does not exist";
      const message = `${name}: ${what}: expected a Hugging Face model folder, a .gguf file, or the name of a model in ${cache}. Nothing is downloaded; \`hf download NAME\` fetches`;
      await expect(load(name)).rejects.toMatchObject({
        code: "ERR_RLSD_MODEL_FILE",
        message: expect.stringContaining(message),
      });
    }
  }
});
