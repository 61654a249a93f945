import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EnginePolicy, exampleSettings, exportModel, loadPolicy, train } from "../lib/index.js";
import { runCli } from "./support/cli.js";
import { sameBits } from "./support/safetensors.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-export-"));
const clock = join(__dirname, "../assets/clock");
const models = join(__dirname, "fixtures/models");
const rlsd = (...args: string[]) => runCli(args, folder);
const PLAIN = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
const ids = Int32Array.of(3, 14, 15, 9, 26);

/** What a body makes of the policy in a folder. */
async function from<T>(directory: string, body: (policy: EnginePolicy) => Promise<T>): Promise<T> {
  await using policy = await loadPolicy(directory);
  return body(policy);
}

/** A short run of the built-in example. */
async function run(name: string, lora: object): Promise<string> {
  const output = join(folder, name);
  const short = { steps: 2, rollout: { prompts: 8, count: 8, maxTokens: 64 }, checkpoint: { every: 1 } };
  const data = { train: [join(clock, "train.jsonl")] };
  await train({ ...exampleSettings(), ...short, data, optimizer: { learningRate: 1e-2 }, lora, output });
  return output;
}

describe("a model of adapters", () => {
  let adapters: string;
  beforeAll(async () => {
    adapters = await run("adapters", { rank: 4 });
  });

  test("is exported as a plain model that computes what the run's own policy does", async () => {
    const output = join(folder, "nested", "whole");
    const summary = await exportModel(adapters, output);
    const { model } = summary;
    expect(summary).toMatchObject({ folder: output, step: 2, parameters: 88384, dtype: "f32", merged: { rank: 4 } });
    const own = await from(model, (policy) => policy.logits(ids));
    const whole = await from(output, async (policy) => {
      expect([policy.lora, policy.tokenizer?.decode(ids)]).toEqual([undefined, expect.any(String)]);
      return policy.logits(ids);
    });
    const difference = Math.max(...own.map((value, i) => Math.abs(value - whole[i]!)));
    expect(difference).toBeLessThan(1e-4);
    const before = await from(clock, (policy) => policy.logits(ids));
    expect(Math.max(...before.map((value, i) => Math.abs(value - whole[i]!)))).toBeGreaterThan(100 * difference);
    expect(readdirSync(output).sort()).toEqual(PLAIN);
  });

  test("of a checkpoint is that checkpoint's", async () => {
    const output = join(folder, "first-step");
    expect(await exportModel(join(adapters, "checkpoints/step-000001"), output)).toMatchObject({ step: 1 });
  });

  test("is that of the run's next best checkpoint where the run removes the one that is being read", async () => {
    const running = join(folder, "running");
    cpSync(adapters, running, { recursive: true });
    const second = join(running, "checkpoints/step-000002");
    const stages: string[] = [];
    const onStage = (stage: string) => {
      if (stages.push(stage) === 1) renameSync(second, `${second}.partial`);
    };
    expect(await exportModel(running, join(folder, "raced"), { onStage })).toMatchObject({ step: 1 });
    expect(stages).toEqual(["reading", "reading", "merging", "writing"]);
  });

  test("takes half the bytes as bfloat16, which the configuration says", async () => {
    const output = join(folder, "half");
    const { status, stdout } = rlsd("export", adapters, output, "--dtype", "bf16", "--json");
    expect([status, JSON.parse(stdout)]).toMatchObject([0, { dtype: "bf16", parameters: 88384 }]);
    expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8")).dtype).toBe("bfloat16");
    expect(statSync(join(output, "model.safetensors")).size).toBeLessThan(2 * 88384 + 8000);
  });

  test("finds its base by --base where it was moved, and says so where it cannot be found", async () => {
    const moved = join(folder, "moved");
    cpSync(join(adapters, "checkpoints/step-000002/model"), moved, { recursive: true });
    const file = join(moved, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify({ ...config, base_model_name_or_path: "nowhere/at-all" }));
    const output = join(folder, "found");
    const lost = rlsd("export", moved, output);
    expect([lost.status, lost.stdout]).toEqual([1, ""]);
    expect(lost.stderr).toMatch(/^rlsd: .*adapter_config\.json.* stands on nowhere\/at-all, .*"base"/);
    expect(existsSync(output)).toBe(false);
    const found = rlsd("export", moved, output, "--base", clock);
    expect([found.status, found.stderr]).toEqual([0, ""]);
    expect(found.stdout).toMatch(
      /^model +.*moved\nadapters +rank 4 on q_proj, .*\nwritten +.*found: 88,384 parameters as f32\n$/,
    );
  });
});

test("a run that trained all weights is exported to the bit", async () => {
  const output = join(folder, "full");
  const { model, merged } = await exportModel(await run("full-run", {}), output);
  expect(merged).toBeNull();
  const [own, whole] = [await from(model, (p) => p.logits(ids)), await from(output, (p) => p.logits(ids))];
  expect(sameBits(own, whole)).toBe(true);
});

describe("export is refused before anything is read", () => {
  const code = (body: Promise<unknown>): Promise<unknown> =>
    body.then(
      () => "done",
      (error) => error.code,
    );

  test("for a folder that is not empty, which stays as it was", async () => {
    const output = join(folder, "used");
    mkdirSync(output);
    writeFileSync(join(output, "notes.txt"), "mine");
    const { status, stderr } = rlsd("export", "nothing-there", output);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/used is not empty: expected a new folder/)]);
    expect(readdirSync(output)).toEqual(["notes.txt"]);
    expect(await code(exportModel(clock, join(output, "notes.txt")))).toBe("ERR_RLSD_WRITE");
  });

  test("for what is no model, a type that there is not, a base under no adapters", async () => {
    const output = join(folder, "none");
    expect(await code(exportModel(folder, output))).toBe("ERR_RLSD_MODEL");
    expect(await code(exportModel(clock, output, { dtype: "f8" as "f16" }))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(await code(exportModel(clock, output, { base: clock }))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(await code(exportModel("", output))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(rlsd("export", join(models, "qwen3-tied"), output, "--dtype", "f8").status).toBe(2);
    expect(existsSync(output)).toBe(false);
  });
});
