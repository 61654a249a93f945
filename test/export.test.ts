import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exampleSettings, exportModel, loadPolicy, RlsdError, train } from "../lib/index.js";
import { EnginePolicy } from "../lib/policy/engine-policy.js";
import { cliArgs, runCli } from "./support/cli.js";
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

describe("an export that is stopped leaves nothing", () => {
  const left = () => readdirSync(folder).filter((name) => /stopped/.test(name));

  test("of what it was writing", async () => {
    const control = new AbortController();
    const reason = new Error("enough");
    const onStage = (stage: string) => void (stage === "writing" && control.abort(reason));
    const { signal } = control;
    await expect(exportModel(clock, join(folder, "stopped"), { signal, onStage })).rejects.toBe(reason);
    expect(left()).toEqual([]);
  });

  test("by Ctrl-C, and says so", async () => {
    // Ctrl-C comes when the model is being read, once: a second one would not wait.
    const hook = `
      import fs from "node:fs/promises";
      import { syncBuiltinESMExports } from "node:module";
      const { open } = fs;
      let sent = false;
      fs.open = async (file, ...rest) => {
        if (!sent && file === ${JSON.stringify(join(clock, "model.safetensors"))}) {
          sent = true;
          process.kill(process.pid, "SIGINT");
          await new Promise((go) => setTimeout(go, 100));
        }
        return open(file, ...rest);
      };
      syncBuiltinESMExports();`;
    const preload = ["--import", `data:text/javascript,${encodeURIComponent(hook)}`];
    const child = spawn(process.execPath, [...preload, ...cliArgs(["export", clock, "stopped"])], { cwd: folder });
    let told = "";
    child.stderr.on("data", (chunk: Buffer) => {
      told += chunk.toString();
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    expect([await ended, told]).toEqual([130, expect.stringMatching(/rlsd: interrupted: nothing was written\n$/)]);
    expect(left()).toEqual([]);
  });

  test("and what one that was killed left is removed by the next, unless it may still be written", async () => {
    const [dead, living] = [join(folder, ".stopped.00000000dead"), join(folder, ".stopped.0000000a11fe")];
    const old = new Date(Date.now() - 7_200_000);
    for (const aside of [dead, living]) {
      mkdirSync(aside);
      writeFileSync(join(aside, "model.safetensors"), "part");
      if (aside === dead) utimesSync(join(aside, "model.safetensors"), old, old);
      // Of a folder in which one file is being written for hours.
      utimesSync(aside, old, old);
    }
    await exportModel(clock, join(folder, "stopped"));
    expect(left()).toEqual([".stopped.0000000a11fe", "stopped"]);
  });
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
    const [file, nowhere] = [join(output, "notes.txt"), join(folder, "nowhere")];
    symlinkSync(join(folder, "not-there"), nowhere);
    for (const place of [file, nowhere]) {
      const refused = rlsd("export", "nothing-there", place);
      expect([refused.status, refused.stderr]).toEqual([1, expect.stringMatching(/choose another folder\./)]);
      expect(refused.stderr).not.toContain("--output");
    }
  });

  test("or, where another export to it was first, when it is to be put in its place", async () => {
    const cause = Object.assign(new Error("ENOTEMPTY: directory not empty, rename"), { code: "ENOTEMPTY" });
    const save = jest.spyOn(EnginePolicy.prototype, "save");
    save.mockRejectedValueOnce(new RlsdError("ERR_RLSD_SAVE", "could not save the model", { cause }));
    const output = join(folder, "both");
    const message = `${output} is not empty: expected a new folder for the model. Choose another one.`;
    await expect(exportModel(clock, output)).rejects.toMatchObject({ code: "ERR_RLSD_WRITE", message });
    save.mockRestore();
  });

  test("for what is no model, a type that there is not, a base under no adapters", async () => {
    const output = join(folder, "none");
    expect(await code(exportModel(folder, output))).toBe("ERR_RLSD_MODEL");
    expect(await code(exportModel(clock, output, { dtype: "f8" as "f16" }))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(await code(exportModel(clock, output, { base: clock }))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(await code(exportModel("", output))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    for (const wrong of [{ onStage: 3 }, { signal: {} }]) {
      expect(await code(exportModel(clock, output, wrong as object))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    }
    expect(rlsd("export", join(models, "qwen3-tied"), output, "--dtype", "f8").status).toBe(2);
    expect(existsSync(output)).toBe(false);
  });
});
