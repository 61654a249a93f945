import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { adapterJson } from "../lib/policy/adapter-folder.js";
import type { LoraConfig } from "../lib/policy/lora.js";
import type { Policy } from "../lib/policy/policy.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { train } from "../lib/trainer/train.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

/** Policies of a caller's own, those of them that nobody has disposed of, and the folders that were loaded. */
function watched(
  o: { readonly change?: (policy: Policy) => object; readonly fails?: (folder: string) => boolean } = {},
) {
  const open = new Set<Policy>();
  const loaded: string[] = [];
  const watch = (policy: TinyPolicy): Policy => {
    const snapshot = policy.snapshot.bind(policy);
    const dispose = async () => void open.delete(policy);
    open.add(Object.assign(policy, { snapshot: async () => watch(await snapshot()), dispose }));
    return Object.assign(policy, o.change?.(policy));
  };
  const loadPolicy = async (folder: string): Promise<Policy> => {
    loaded.push(folder);
    if (o.fails?.(folder)) throw new Error(`cannot load ${folder}`);
    return watch(await TinyPolicy.load(folder));
  };
  return { open, loaded, hooks: { loadPolicy } };
}

const code = "ERR_RLSD_CONFIG";

/** Refuses the settings, whoever reads them, before anything is written; gives up all that was loaded. */
async function refused(change: TrainConfig, message: RegExp, policies = watched()): Promise<void> {
  const { settings } = tinyTask();
  for (const run of [train, dryRun]) {
    const call = run({ ...settings, ...change }, policies.hooks);
    await expect(call).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect([policies.loaded.length > 0, policies.open.size]).toEqual([true, 0]);
  }
  expect(existsSync(settings.output)).toBe(false);
}

test("adapters are refused on policies that cannot have them", () =>
  refused({ lora: { rank: 2 } }, /"lora\.rank": the policy that was loaded cannot have adapters/));

test("a teacher without adapters is refused where there are none", async () => {
  const message = /"teacher\.kind" is base, but the policy has no adapters .*: set "lora\.rank"/;
  await refused({ teacher: { kind: "base" } }, message);
  // Asked by the first step alone.
  const creditSchedule = { warmup: 0, hold: 0, decay: 2 };
  await refused({ teacher: { kind: "base" }, creditSchedule }, message);
  // By no step.
  const { settings } = tinyTask();
  const grpo = { ...settings, steps: 1, algorithm: "grpo", objective: {}, teacher: { kind: "base" } } as const;
  expect(await dryRun(grpo, watched().hooks)).toMatchObject({ memory: { teacher: 0 } });
  expect(await train(grpo, watched().hooks)).toMatchObject({ step: 1 });
});

test("what was loaded is given up when the rest cannot be", async () => {
  const { settings } = tinyTask();
  const teacher = { kind: "external", model: "elsewhere" } as const;
  const external = watched({ fails: (folder) => folder === "elsewhere" });
  await expect(train({ ...settings, teacher }, external.hooks)).rejects.toThrow("cannot load elsewhere");
  expect([external.loaded, external.open.size]).toEqual([[settings.model, "elsewhere"], 0]);

  const withLora = () => Promise.reject(new Error("no memory"));
  const full = watched({ change: () => ({ withLora }) });
  await expect(train({ ...settings, lora: { rank: 2 } }, full.hooks)).rejects.toThrow("no memory");
  expect([full.loaded, full.open.size]).toEqual([[settings.model], 0]);
  expect(existsSync(settings.output)).toBe(false);

  const kl = { ...settings, objective: { creditMix: 1, klCoef: 0.1 } };
  const control = new AbortController();
  await train(kl, { ...watched().hooks, signal: control.signal, onStep: () => control.abort() });
  for (const missing of ["teacher", "reference"]) {
    const again = watched({ fails: (folder) => folder.endsWith(join("initial", missing)) });
    await expect(train(kl, { ...again.hooks, resume: settings.output })).rejects.toThrow(/cannot load .*initial/);
    expect([again.loaded.length > 1, again.open.size]).toEqual([true, 0]);
  }
  expect(await train(kl, { ...watched().hooks, resume: settings.output })).toMatchObject({ stopped: "done" });
});

describe("policies that save adapters in a way of their own", () => {
  const lora: LoraConfig = { rank: 2, alpha: 4, rankStabilized: false, targets: ["q_proj"] };
  const saving = (policy: Policy) => {
    const save = policy.save.bind(policy);
    return {
      lora,
      save: async (directory: string, o?: object) => {
        await save(directory, o);
        writeFileSync(join(directory, "adapter_config.json"), JSON.stringify(adapterJson(lora, null)));
      },
    };
  };

  test("go on from what they saved", async () => {
    const { settings } = tinyTask();
    const control = new AbortController();
    const first = { ...watched({ change: saving }).hooks, signal: control.signal, onStep: () => control.abort() };
    await train(settings, first);
    const again = watched({ change: saving });
    expect(await train(settings, { ...again.hooks, resume: settings.output })).toMatchObject({
      stopped: "done",
      step: 6,
    });
    const checkpoint = join(settings.output, "checkpoints/step-000001/model");
    expect([again.loaded.includes(checkpoint), again.open.size]).toEqual([true, 0]);
  });
});
