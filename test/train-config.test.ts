import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, grpo, loadPolicy, rlsd } from "../lib/index.js";
import { ALGORITHMS } from "../lib/trainer/algorithms.js";
import { defaultArms } from "../lib/trainer/compare.js";
import { resolveConfig } from "../lib/trainer/config.js";
import { merge, parseSet, readConfigFile } from "../lib/trainer/config-file.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { exampleSettings, settingsWithoutFile } from "../lib/trainer/example/config.js";
import { FOREIGN } from "../lib/trainer/foreign-names.js";
import { describeSettings, fieldAt } from "../lib/trainer/schema.js";
import { trainSchema } from "../lib/trainer/settings.js";
import { train } from "../lib/trainer/train.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const base = { model: "m", data: { train: ["d.jsonl"] } };
const hooks = { loadPolicy: TinyPolicy.load };

/** A sum that is its own part, and a list in a list in a list. */
const endless = { type: "sum", parts: [] as unknown[] };
endless.parts.push(endless);
const deep = Array.from({ length: 9000 }).reduce<unknown>((inner) => [inner], "math");

describe("settings", () => {
  test("fill in defaults", () => {
    const config = resolveConfig(base);
    expect(config).toMatchObject({ algorithm: "rlsd", rollout: { count: 8 }, teacher: { kind: "frozen" } });
    expect(resolveConfig({ ...base, rollout: { count: 4 } }).rollout).toMatchObject({ count: 4, prompts: 8 });
  });

  const wrong: [string, object, RegExp][] = [
    ["a reward without end", { reward: endless }, /"reward" has parts in parts, more than 32 deep/],
    ["a reward of lists of lists", { reward: deep }, /"reward" has parts in parts, more than 32 deep/],
    ["an unknown name", { optimiser: {} }, /no setting "optimiser"\. Did you mean "optimizer"/],
    [
      "an unknown inner name",
      { rollout: { temprature: 1 } },
      /"rollout\.temprature"\. Did you mean "rollout\.temperature"/,
    ],
    ["a wrong type", { steps: "ten" }, /Expected an integer of at least 0 for "steps" but received "ten"/],
    ["no number", { steps: Number.NaN }, /Expected an integer of at least 0 for "steps" but received NaN/],
    ["out of range", { rollout: { minP: 2 } }, /Expected a number from 0 to 1 for "rollout\.minP" but received 2/],
    ["no probability at all", { rollout: { topP: 0 } }, /a number above 0 and at most 1 for "rollout\.topP"/],
    ["more than the engine counts", { rollout: { topK: 2 ** 31 } }, /from 0 to 2147483647 for "rollout\.topK"/],
    [
      "a stop string that is always there",
      { rollout: { stopStrings: [""] } },
      /a text that is not empty for "rollout\.s/,
    ],
    ["moments that never move", { optimizer: { betas: [0.9, 1] } }, /each a number of at least 0 and below 1 for/],
    ["an eps that float32 does not hold", { optimizer: { eps: 1e-60 } }, /at least 1\.175\d+e-38 for "optimizer\.eps"/],
    ["no eps", { optimizer: { eps: 0 } }, /"optimizer\.eps"/],
    ["a loss that takes coefficients", { objective: { objective: "row-coefficient" } }, /a coefficient a token/],
    [
      "a wrong choice",
      { algorithm: "ppo" },
      /Expected one of rlsd, grpo, opsd, sdpo, grpo\+opsd, opd, sft for "algorithm"/,
    ],
    ["a section that is a number", { data: 3 }, /Expected an object for "data"/],
    ["no model", { model: "" }, /"model"/],
    ["no data", { data: { train: [] } }, /"data\.train"/],
    ["a group of one", { rollout: { count: 1 } }, /group of one/],
    ["pass@k beyond the samples", { eval: { samples: 2, passAt: [4] } }, /"eval\.passAt" has 4/],
    ["an external teacher without a model", { teacher: { kind: "external" } }, /"teacher\.model"/],
    ["adapters on nothing", { lora: { rank: 4, targets: [] } }, /at least one matrix for "lora\.targets"/],
    ["adapters on no matrix", { lora: { targets: ["lm_head"] } }, /a list, each one of q_proj, .* for "lora\.targets"/],
    ["adapters of no size", { lora: { rank: -1 } }, /an integer from 0 to 65536 for "lora\.rank" but received -1/],
    ["adapters beyond any size", { lora: { rank: 65537 } }, /"lora\.rank"/],
    [
      "adapters with a scale beyond float32",
      { lora: { rank: 4, alpha: 1e300 } },
      /"lora": alpha 1e\+300 with rank 4 scales the adapters by Infinity in float32: expected a scale above 0/,
    ],
    ["adapters without a scale", { lora: { rank: 4, alpha: 0 } }, /a number of at least 0\.000001.* for "lora\.alpha"/],
    ["half a span", { span: { open: "<think>" } }, /go together/],
    ["an unknown objective field", { objective: { clipHihg: 0.3 } }, /"objective": .*clipHigh/],
    ["an unknown preset", { objective: { preset: "gropo" } }, /There is no "objective\.preset" "gropo"/],
    ["the temperature in two places", { objective: { temperature: 2 } }, /"rollout\.temperature"/],
    ["rlsd without privileged text", { privileged: { source: "none" } }, /needs privileged text/],
    ["a target in percent", { stop: { target: 85 } }, /a number from 0 to 1, or null for "stop\.target"/],
    ["a target that nothing is measured against", { stop: { target: 0.9 } }, /"stop\.target" waits .*"data\.eval"/],
    ["patience without evaluations", { stop: { patience: 2 } }, /"stop\.patience" waits .*"data\.eval"/],
    [
      "more updates than completions",
      { update: { minibatches: 65 } },
      /"update\.minibatches" is 65, but .* only 64 compl/,
    ],
    [
      "more updates than traces",
      { algorithm: "sft", update: { minibatches: 9 } },
      /"update\.minibatches" is 9, but a step has only 8 traces/,
    ],
    ["a broken pattern", { leak: { patterns: ["("] } }, /"leak\.patterns"/],
  ];
  test.each(wrong)("%s is one clear error", (_, change, message) => {
    expect(() => resolveConfig({ ...base, ...change })).toThrow(message);
    expect(() => resolveConfig({ ...base, ...change })).toThrow(expect.objectContaining({ code: "ERR_RLSD_CONFIG" }));
  });

  const alone: [needed: string, setting: object, others: object][] = [
    ["environment", { rollout: { turns: 3 } }, { environment: null }],
    ["data.eval", { eval: { limit: 3 } }, { data: { ...base.data, eval: [] } }],
    ["data.eval", { eval: { samples: 3 } }, { data: { ...base.data, eval: [] } }],
    ["data.eval", { stop: { minDelta: 0.1 } }, { data: { ...base.data, eval: [] } }],
    [
      "eval.samples",
      { eval: { passAt: [1] } },
      { eval: { passAt: [1], samples: 0 }, data: { ...base.data, eval: [] } },
    ],
    ["overlong.mode", { overlong: { penalty: 2 } }, { overlong: { penalty: 2, mode: "mask" } }],
    ["groups.zeroVariance", { groups: { maxResamples: 2 } }, { groups: { maxResamples: 2, zeroVariance: "drop" } }],
    ["objective.klCoef", { objective: { klEstimator: "k2" } }, { objective: { klEstimator: "k2", klCoef: 0 } }],
    ["objective.klCoef", { objective: { klClamp: 5 } }, { objective: { klClamp: 5, klCoef: 0.1 } }],
    [
      "objective.klCoef",
      { objective: { klImportanceCorrection: true } },
      { objective: { klImportanceCorrection: true, klCoef: 0.1 } },
    ],
    ["creditSchedule.decay", { creditSchedule: { hold: 2 } }, { creditSchedule: { hold: 2, decay: 3 } }],
    ["lora.rank", { lora: { alpha: 8 } }, { lora: { alpha: 8, rank: 0 } }],
    ["teacher.kind", { teacher: { rate: 0.5 } }, { teacher: { rate: 0.5, kind: "frozen" } }],
    ["distill.topK", { distill: { tail: false } }, { distill: { tail: false, topK: 0 } }],
    ["optimizer.schedule", { optimizer: { minRatio: 0.1 } }, { optimizer: { minRatio: 0.1, schedule: "constant" } }],
  ];
  test.each(alone)("that mean something beside %s are refused without it: %j", (needed, setting, others) => {
    expect(() => resolveConfig({ ...base, ...setting })).toThrow(
      expect.objectContaining({
        code: "ERR_RLSD_CONFIG",
        message: expect.stringContaining(`has no effect without "${needed}", which is not given`),
      }),
    );
    // A switch that is off by intent, as where an arm of a comparison or --set turns it, leaves them for when it is on.
    expect(resolveConfig({ ...base, ...setting, ...others })).toMatchObject(setting);
  });

  test.each([
    [
      "creditSchedule",
      { stepBase: 0 },
      [{ warmup: 3 }, { decay: 3 }],
      '"creditSchedule.warmup" or "creditSchedule.decay"',
    ],
    [
      "privileged",
      { successThreshold: 0.5 },
      [{ source: "sibling" }, { contrast: true }],
      '"privileged.source" or "privileged.contrast" or "algorithm"',
    ],
  ])("of %s that need one of several: %j", (section, setting, others, named) => {
    const message = `has no effect without ${named}, of which none is given: set one too, or leave this out`;
    expect(() => resolveConfig({ ...base, [section]: setting })).toThrow(message);
    for (const other of others) {
      const both = { [section]: { ...setting, ...other } };
      expect(resolveConfig({ ...base, ...both })).toMatchObject(both);
    }
  });

  test("sdpo looks for successes by itself", () => {
    const sdpo = { algorithm: "sdpo", privileged: { successThreshold: 0.5 } };
    expect(resolveConfig({ ...base, ...sdpo })).toMatchObject(sdpo);
  });

  const unused: [setting: object, used: object, message: string][] = [
    [
      { advantage: { scale: "none", ddof: 0 } },
      { advantage: { scale: "batch", ddof: 0 } },
      '"advantage.ddof" is 0, but has no effect where "advantage.scale" is none: set that to group or batch',
    ],
    [{ advantage: { scale: "none", eps: 0 } }, { advantage: { eps: 0 } }, '"advantage.eps" is 0'],
    [
      { algorithm: "opsd", distill: { divergence: "forward-kl", beta: 0.2 } },
      { algorithm: "opsd", distill: { divergence: "jsd", beta: 0.2 } },
      '"distill.beta" is 0.2, but has no effect where "distill.divergence" is forward-kl: set that to jsd',
    ],
    [
      { objective: { klCoef: 1, klEstimator: "k2", klClamp: 5 } },
      { objective: { klCoef: 1, klEstimator: "k3", klClamp: 5 } },
      '"objective.klClamp" is 5, but has no effect where "objective.klEstimator" is k2',
    ],
    [
      { objective: { preset: "sapo", clipLow: 0.1 } },
      { objective: { preset: "gmpo", clipLow: 0.1 } },
      '"objective.clipLow" is 0.1, but the surrogate sapo has no use for it: leave it out (its default is 0.2), or take a preset of ppo-clip, ',
    ],
    [
      { objective: { sapoTemperaturePos: 2 } },
      { objective: { objective: "sapo", sapoTemperaturePos: 2 } },
      "the surrogate ppo-clip has no use for it: leave it out (its default is 1), or take a preset of sapo.",
    ],
    [
      { objective: { preset: "gspo", dualClip: 3 } },
      { objective: { preset: "luspo", dualClip: 3 } },
      "gspo has no use",
    ],
    [
      { algorithm: "grpo", objective: { preset: "cispo", ratioBound: 3 } },
      { objective: { ratioBound: 3 } },
      "cispo has",
    ],
  ];
  test.each(unused)("that nothing makes use of are refused: %j", (setting, used, message) => {
    const refused = () => resolveConfig({ ...base, ...setting });
    expect(refused).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_CONFIG", message: expect.stringContaining(message) }),
    );
    expect(resolveConfig({ ...base, ...used })).toMatchObject(used);
  });

  test("that nothing makes use of may have their defaults, as a run's folder has them all", () => {
    const advantage = { scale: "none", eps: 1e-6, ddof: 1 } as const;
    const distill = { divergence: "reverse-kl", beta: 0.5 } as const;
    const objective = { preset: "sapo", clipLow: 0.2, klCoef: 1, klEstimator: "k1", klClamp: 10 };
    const resolved = resolveConfig({ ...base, advantage, distill, objective });
    expect(resolveConfig(resolved)).toEqual(resolved);
    // The defaults that the checks know are those of the settings.
    expect([resolveConfig(base).advantage, resolveConfig(base).distill]).toMatchObject([
      { eps: advantage.eps, ddof: advantage.ddof },
      { beta: distill.beta },
    ]);
    expect(grpo().klClamp).toBe(objective.klClamp);
  });

  test("that say twice where the question is are refused", () => {
    const fields = (o: object) => () => resolveConfig({ ...base, data: { ...base.data, fields: o } });
    expect(fields({ messages: "m", prompt: "p" })).toThrow(
      /"data.fields.messages" \(m\) and "data.fields.prompt" \(p\) both/,
    );
    expect(fields({ messages: "m", prompt: "" })).not.toThrow();
  });

  test("that are given as a run's folder has them, or as nothing, need no other", () => {
    const resolved = resolveConfig(base);
    expect(resolveConfig(resolved)).toEqual(resolved);
    expect(resolveConfig({ ...base, lora: { alpha: null }, teacher: { model: "" } })).toEqual(resolved);
  });

  test("come from YAML and JSON files, whose paths are meant from where they are", async () => {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-config-"));
    mkdirSync(join(folder, "sub"));
    const yaml = join(folder, "sub", "run.yaml");
    writeFileSync(
      yaml,
      "model: ../model\ndata: { train: rows.jsonl, eval: [/abs/e.jsonl] }\noptimizer: { learningRate: 2e-4 }\n",
    );
    expect(await readConfigFile(yaml)).toEqual({
      model: join(folder, "model"),
      data: { train: [join(folder, "sub", "rows.jsonl")], eval: ["/abs/e.jsonl"] },
      optimizer: { learningRate: 2e-4 },
    });
    const modules = join(folder, "sub", "modules.json");
    const named = { type: "module", path: "a-package" };
    const reward = { type: "sum", parts: [{ verifier: { type: "module", path: "./mine.mjs" } }, { verifier: named }] };
    writeFileSync(modules, JSON.stringify({ reward }));
    expect(await readConfigFile(modules)).toEqual({
      reward: {
        type: "sum",
        parts: [{ verifier: { type: "module", path: join(folder, "sub", "mine.mjs") } }, { verifier: named }],
      },
    });
    const json = join(folder, "run.json");
    writeFileSync(json, "{ not json");
    await expect(readConfigFile(json)).rejects.toMatchObject({ code: "ERR_RLSD_CONFIG" });
    await expect(readConfigFile(join(folder, "none.yaml"))).rejects.toThrow(/none\.yaml/);
    // As PowerShell writes them: with a mark before the text, or in UTF-16.
    writeFileSync(json, '\ufeff{"steps":3}');
    expect(await readConfigFile(json)).toEqual({ steps: 3 });
    for (const file of [json, yaml]) {
      writeFileSync(file, Buffer.from('\ufeff{"steps":3}', "utf16le"));
      await expect(readConfigFile(file)).rejects.toMatchObject({
        code: "ERR_RLSD_CONFIG",
        message: `${file}: not UTF-8: save the file in that encoding.`,
      });
    }
    writeFileSync(json, '[{"question": "q"}]');
    const star = join(folder, "star.yaml");
    writeFileSync(star, "data: { train: [*.jsonl] }\n");
    await expect(readConfigFile(star)).rejects.toThrow(
      /star\.yaml: .*alias.* A text that begins with \* stands in quotes\.$/,
    );
    await expect(readConfigFile(folder)).rejects.toThrow(`${folder} is a folder, not settings (YAML or JSON).`);
    for (const data of [json, "rows.jsonl", "rows.csv", "rows.tsv", "rows.jsonl.gz", "shards/*.parquet"]) {
      await expect(readConfigFile(data)).rejects.toMatchObject({
        code: "ERR_RLSD_CONFIG",
        message: `${data} is data, not settings (YAML or JSON): give it as --set data.train=${data}, with --set model=FOLDER, or name both in a file of settings.`,
      });
    }
  });

  test("--set reads numbers, texts, lists and nested names", async () => {
    const set = await parseSet([
      "optimizer.learningRate=2e-4",
      "stop.target=null",
      "eval.passAt=[1, 2]",
      "algorithm=grpo",
      "data.eval=*.jsonl",
    ]);
    expect(set).toEqual({
      optimizer: { learningRate: 2e-4 },
      stop: { target: null },
      eval: { passAt: [1, 2] },
      algorithm: "grpo",
      data: { eval: [join(process.cwd(), "*.jsonl")] },
    });
    await expect(parseSet(["steps"])).rejects.toThrow(/key=value/);
    await expect(parseSet([`${"a.".repeat(9000)}b=1`])).rejects.toMatchObject({
      code: "ERR_RLSD_CONFIG",
      message: "--set: expected at most 32 names before = but received 9001.",
    });
    await expect(parseSet(["eval.passAt={{ content }} [1]"])).rejects.toThrow(/YAML.*quotes/s);
    expect(merge({ a: { b: 1, c: [1] } }, { a: { c: [2] } })).toEqual({ a: { b: 1, c: [2] } });
  });

  test.each([
    ["data.trian", '"data.train"'],
    ["learning_rate", '"optimizer.learningRate"'],
    ["lr", '"optimizer.learningRate"'],
    ["optimizer.lr", '"optimizer.learningRate"'],
    ["num_generations", '"rollout.count"'],
    ["rollout.n", '"rollout.count"'],
    ["lora_r", '"lora.rank"'],
    ["beta", '"distill.beta" or "objective.klCoef"'],
    ["temperature", '"rollout.temperature" or "eval.temperature"'],
    ["Rollout", '"rollout"'],
  ])("a name of elsewhere is told by ours: %s", async (name, ours) => {
    const given = await parseSet([`${name}=1`]);
    expect(() => resolveConfig({ model: "m", ...given })).toThrow(
      `There is no setting "${name}". Did you mean ${ours}?`,
    );
  });

  test("all names of another trainer's file are told at once, those within its sections too", () => {
    const trl = { model_name_or_path: "m", learning_rate: 1e-6, num_train_epochs: 1, bf16: true };
    expect(() => resolveConfig(trl as never)).toThrow(
      'There is no setting "model_name_or_path". Did you mean "model"? ' +
        'Nor "learning_rate" ("optimizer.learningRate"?), "num_train_epochs" ("steps"?), "bf16".',
    );
    const verl = { actor_rollout_ref: { actor: { optim: { lr: 1e-6 } }, hybrid_engine: true, rollout: { n: 8 } } };
    expect(() => resolveConfig({ model: "m", ...verl } as never)).toThrow(
      'There is no setting "actor_rollout_ref.actor.optim.lr". Did you mean "optimizer.learningRate"? ' +
        'Nor "actor_rollout_ref.hybrid_engine", "actor_rollout_ref.rollout.n" ("rollout.count"?).',
    );
    const many = Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`zq${i}`, i]));
    expect(() => resolveConfig({ model: "m", ...many } as never)).toThrow(/"zq11", "zq12", 2 more\.$/);
  });

  test("what others call a setting leads to one that there is", () => {
    const objectives = new Set(Object.keys(rlsd()));
    const missing = Object.keys(FOREIGN).filter((path) => {
      const [section, name = ""] = path.split(".");
      return section === "objective"
        ? name !== "preset" && !objectives.has(name)
        : !fieldAt(trainSchema, path.split("."));
    });
    expect(missing).toEqual([]);
    expect(() => resolveConfig({ model: "m", wholly: 1 } as never)).toThrow(/Expected one of model, output, /);
  });

  test("--set takes the value of a text as it stands, but for one in quotes and null", async () => {
    const texts = [
      "{{ content }} {{ privileged }}",
      "a: b",
      "[1]",
      "12",
      "true",
      "5 # five",
      "- x",
      "",
      '"half',
      "&a *b",
    ];
    const system = async (text: string) => (await parseSet([`data.system=${text}`])) as { data: { system: unknown } };
    expect(await Promise.all(texts.slice(0, 7).map(system))).toEqual(
      texts.slice(0, 7).map((text) => ({ data: { system: text } })),
    );
    for (const text of texts.slice(8)) expect((await system(text)).data.system).toBe(text);
    expect([(await system("null")).data.system, (await system("")).data.system]).toEqual([null, null]);
    expect((await system('"a\\nb: c"')).data.system).toBe("a\nb: c");
    expect(await parseSet(["span.open=", "span.close=null"])).toEqual({ span: { open: "", close: "null" } });
  });

  test("~/ is the user's own folder, in a file and in --set", async () => {
    const own = (path: string) => join(homedir(), path);
    const set = await parseSet(["model=~/m", "data.train=[~/a.jsonl]", "reward={type: module, path: ~/v}"]);
    expect(set).toEqual({
      model: own("m"),
      data: { train: [own("a.jsonl")] },
      reward: { type: "module", path: own("v") },
    });
    const file = join(mkdtempSync(join(tmpdir(), "rlsd-home-")), "run.yaml");
    writeFileSync(file, "model: ~/m\nteacher: { model: ~/t }\n");
    expect(await readConfigFile(file)).toEqual({ model: own("m"), teacher: { model: own("t") } });
  });

  test("modules and programs of a switch are meant from where its file is", async () => {
    const at = mkdtempSync(join(tmpdir(), "rlsd-switch-"));
    const file = join(at, "run.yaml");
    const cases = "{ a: { type: module, path: ./a.mjs }, b: math }";
    writeFileSync(
      file,
      `reward: { type: switch, field: k, cases: ${cases}, otherwise: { type: command, command: [x] } }\n`,
    );
    expect((await readConfigFile(file)).reward).toMatchObject({
      cases: { a: { path: join(at, "a.mjs") }, b: "math" },
      otherwise: { cwd: at },
    });
    const talked = { type: "switch", field: "k", cases: { a: "math" }, otherwise: "environment" };
    expect(() => resolveConfig({ model: "m", data: { train: ["d.jsonl"] }, reward: talked })).toThrow(
      /"environment" names none/,
    );
  });

  test("another verifier has no options of the one before it, and one that code made stays itself", async () => {
    const before = { reward: { type: "math", decimals: 3, tag: "answer" }, steps: 2 };
    expect(merge(before, await parseSet(["reward={type: numeric}"]))).toEqual({
      reward: { type: "numeric" },
      steps: 2,
    });
    expect(merge(before, await parseSet(["reward.decimals=4"]))).toMatchObject({
      reward: { decimals: 4, tag: "answer" },
    });
    const both = await parseSet(["reward.decimals=4", "reward.type=math"]);
    expect(merge(before, both)).toEqual({ reward: { type: "math", decimals: 4 }, steps: 2 });
    class Own {
      verify = async () => ({ reward: 1 });
    }
    const own = new Own();
    expect(merge(before, { reward: own }).reward).toBe(own);
  });
});

describe("the loss and its credit", () => {
  const objectiveOf = (settings: object) => {
    const config = resolveConfig({ ...base, ...settings });
    return ALGORITHMS[config.algorithm]!.objective(config);
  };

  test("rlsd has credit on every preset, and nothing else of it changes", () => {
    for (const preset of ["rlsd", "grpo", "dapo", "gspo"]) {
      const [credited, bare] = ["rlsd", "grpo"].map((algorithm) => objectiveOf({ algorithm, objective: { preset } }));
      expect(credited).toEqual({ ...bare, creditMix: 0.5 });
    }
    expect(objectiveOf({ objective: { preset: "grpo", creditMix: 0.25 } }).creditMix).toBe(0.25);
  });

  test("a comparison without arms leaves the settings' own loss to both", () => {
    const cases: [object, string][] = [
      [{}, "rlsd"],
      [{ algorithm: "rlsd" }, "rlsd"],
      [{ algorithm: "grpo" }, "grpo"],
      [{ algorithm: "grpo", objective: { preset: "dapo" } }, "dapo"],
    ];
    for (const [settings, own] of cases) {
      const { arms, preset } = defaultArms(settings as never);
      const losses = arms.map((arm) => objectiveOf(merge(settings as never, arm.settings)));
      const bare = objectiveOf({ algorithm: "grpo", objective: { preset: own } });
      expect([preset, arms.map((arm) => arm.name)]).toEqual([own, ["grpo", "rlsd"]]);
      expect(losses.map((loss) => ({ ...loss, creditMix: 0 }))).toEqual([0, 1].map(() => ({ ...bare, creditMix: 0 })));
      expect(losses[1]!.creditMix).toBe(0.5);
    }
  });
});

describe("what is wrong is said before any work is lost", () => {
  const refused = async (change: object) => {
    const { settings } = tinyTask();
    const error = await train({ ...settings, ...change }, hooks).catch((e: Error) => e);
    expect(existsSync(settings.output)).toBe(false);
    return error as Error & { code: string };
  };

  test("a model folder that is none", async () => {
    const { settings } = tinyTask();
    const run = train({ ...settings, model: "/nowhere" });
    await expect(run).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: expect.stringContaining("/nowhere"),
    });
  });

  test("a verifier that cannot judge the rows", async () => {
    const error = await refused({ reward: { type: "numeric", answer: "answer" } });
    expect(error).toMatchObject({ code: "ERR_RLSD_DATA" });
    expect(error.message).toMatch(/12 of 12 rows do not fit:\n.*train\.jsonl:1: .*numeric/);
  });

  test("a verifier that does not exist", async () => {
    const error = await refused({ reward: "numerik" });
    expect(error).toMatchObject({ code: "ERR_RLSD_CONFIG", message: expect.stringMatching(/"reward": .*"numeric"/) });
  });

  test("a part of a reward with a misspelt weight", async () => {
    const error = await refused({ reward: [{ verifier: "numeric", wieght: 0.1 } as never] });
    expect(error.message).toMatch(/only verifier, weight and name/);
  });

  test("more new tokens than the model is long", async () => {
    expect((await refused({ rollout: { maxTokens: 100 } })).message).toMatch(
      /maxTokens" leaves no room.* lower it by 5/,
    );
  });

  test("prompts that leave no room for a completion", async () => {
    const error = await refused({ rollout: { maxTokens: 90 } });
    expect(error.message).toMatch(/the prompt has \d+ tokens.*room for 6/);
  });

  test("a template that hides the question", async () => {
    expect((await refused({ privileged: { template: "{{ privileged }}" } })).message).toMatch(/content/);
  });

  test("a verifier that judges nothing stops the run at its first step", async () => {
    const { settings } = tinyTask();
    const run = train({ ...settings, reward: () => null, data: { train: settings.data!.train! } }, hooks);
    await expect(run).rejects.toMatchObject({
      code: "ERR_RLSD_UNJUDGED",
      message: expect.stringContaining("undecided"),
    });
  });
});

describe("a dry run", () => {
  test("says shapes, memory, schedule and which rows have privileged text, and writes nothing", async () => {
    const { folder, settings } = tinyTask();
    const rows = [{ question: "say a", answer: "a", trace: "aa" }, { question: "say b" }];
    writeFileSync(join(folder, "some.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
    const plan = await dryRun(
      { ...settings, data: { train: [join(folder, "some.jsonl")] }, creditSchedule: { decay: 6 } },
      hooks,
    );
    expect(plan.privileged).toMatchObject({
      whole: 1,
      none: 1,
      firstWithout: [expect.stringContaining("some.jsonl:2")],
    });
    expect(plan.memory).toMatchObject({
      optimizer: 2 * plan.memory.weights,
      teacher: plan.memory.weights,
      reference: 0,
    });
    expect(plan.schedule.at(-1)).toMatchObject({ step: 6, creditMix: 0 });
    expect(dryRunText(plan)).toContain("without privileged text: ");
    expect(plan.columns).toMatchObject({ train: { prompt: "question", answer: "answer" }, eval: null });
    expect([plan.endings, dryRunText(plan)]).toEqual([null, expect.not.stringMatching(/^ends/m)]);
    const told = (endings: readonly string[]) => /^ends +(.*)$/m.exec(dryRunText({ ...plan, endings }))?.[1];
    expect(told(["<|end|>", "\n"])).toBe('"<|end|>", "\\n"');
    expect(told([])).toMatch(/^nowhere: the model has no end token/);
    const bare = / the model has no chat template: contents are read one after the other/;
    expect([plan.chat, dryRunText(plan)]).toEqual([true, expect.not.stringMatching(bare)]);
    expect(dryRunText({ ...plan, chat: false })).toMatch(bare);
    expect(plan.asked).toEqual({
      student: "<user>say a<assistant>",
      teacher: "<user>say a. aa<assistant>",
      demonstration: null,
    });
    expect(dryRunText(plan)).toMatch(/^columns {4}prompt from question, answer, trace$/m);
    expect(dryRunText(plan)).toMatch(
      /as the model reads it:\n {2}\| <user>say a<assistant>\n.*the teacher reads it:\n {2}\| .*a\. aa<assistant>$/,
    );
    expect(existsSync(settings.output)).toBe(false);
    expect([plan.heldOutInTraining, plan.memory.activations]).toEqual([0, undefined]);
    expect(dryRunText(plan)).toMatch(/, and activations and keyValueCache$/m);
  });

  test("shows a teacher the choice that the number of an answer means", async () => {
    const { folder, settings } = tinyTask();
    writeFileSync(join(folder, "choices.jsonl"), '{"question":"say b","answer":1,"choices":["aa","bb"]}');
    const changes = { data: { train: [join(folder, "choices.jsonl")] }, reward: "choice" };
    const plan = await dryRun(
      { ...settings, ...changes, privileged: { ...settings.privileged, source: "answer" } },
      hooks,
    );
    // The tokenizer has no capital letters.
    expect(plan.asked.teacher).toBe("<user>say b. . bb<assistant>");
  });

  test("tells every ending once, and the files that a pattern means", async () => {
    const { folder, settings } = tinyTask();
    const ending = async (path: string) => {
      const policy = await TinyPolicy.load(path);
      return Object.defineProperty(policy, "endTokenIds", { value: [0, 0] });
    };
    for (const i of [1, 2, 3, 4, 5, 6, 7])
      writeFileSync(join(folder, `${i}.jsonl`), '{"question":"say a","answer":"a"}');
    const data = { train: [join(folder, "[1-7].jsonl")], eval: [join(folder, "e*.jsonl")] };
    const plan = await dryRun(
      { ...settings, data, rollout: { ...settings.rollout, stopStrings: ["x", "x"] } },
      { loadPolicy: ending },
    );
    expect(plan.endings).toEqual([expect.any(String), "x"]);
    expect(plan.config.data).toMatchObject({
      train: [1, 2, 3, 4, 5, 6, 7].map((i) => join(folder, `${i}.jsonl`)),
      eval: [join(folder, "eval.jsonl")],
    });
    const told = dryRunText(plan).split("\n").slice(2, 9);
    expect(told.map((line) => line.replace(folder, "").trim())).toEqual([
      "train:    /1.jsonl",
      ...[2, 3, 4, 5].map((i) => `/${i}.jsonl`),
      "... (1 more)",
      "/7.jsonl",
    ]);
  });

  test("changes without a settings file are of the example, unless model and rows are both other ones", async () => {
    const settled = async (...changes: string[]) => {
      const set = await parseSet(changes);
      return resolveConfig(merge({ ...settingsWithoutFile(set) }, set));
    };
    const example = resolveConfig(exampleSettings());
    const model = await settled("model=/m");
    expect(model).toEqual({ ...example, model: "/m" });
    const rows = await settled("data.train=/a.jsonl");
    expect(rows).toEqual({ ...example, data: { ...example.data, train: ["/a.jsonl"] } });
    expect(await settled("data.train=/a.jsonl", "model=/m", "steps=3")).toEqual(
      resolveConfig({ model: "/m", data: { train: ["/a.jsonl"] }, steps: 3 }),
    );
  });

  test("counts held-out prompts that are training prompts too, and what an update keeps", async () => {
    const settings = exampleSettings();
    const [train = ""] = settings.data?.train ?? [];
    const folder = mkdtempSync(join(tmpdir(), "rlsd-plan-"));
    const [seen, other] = readFileSync(train, "utf8").split("\n");
    const [own] = readFileSync(settings.data?.eval?.[0] ?? "", "utf8").split("\n");
    writeFileSync(join(folder, "train.jsonl"), `${seen}\n${other}`);
    writeFileSync(join(folder, "held.jsonl"), `${seen}\n${own}\n${seen}`);
    const data = { train: [join(folder, "train.jsonl")], eval: [join(folder, "held.jsonl")] };
    const plan = await dryRun({ ...settings, data });
    expect(plan.heldOutInTraining).toBe(2);
    expect(dryRunText(plan)).toContain("2 of 3 held-out prompts are training prompts too");
    await using policy = await loadPolicy(settings.model ?? "");
    const tokens = 8 * (plan.promptTokens.max + 8 * 32);
    expect(plan.memory.activations).toBe(policy.activationBytes(tokens, true) + 4 * tokens * policy.vocabSize);
    expect(dryRunText(plan)).not.toContain(", and activations");
    const cut = await dryRun({ ...settings, data, update: { microbatchTokens: 100 } });
    expect(cut.memory.activations).toBe(policy.activationBytes(100, true) + 400 * policy.vocabSize);
  });

  test("counts the cache in blocks of 64 tokens, those that a prompt fills once for its completions", async () => {
    const settings = exampleSettings();
    const [line = "{}"] = readFileSync(settings.data?.train?.[0] ?? "", "utf8").split("\n");
    const folder = mkdtempSync(join(tmpdir(), "rlsd-plan-"));
    const row = JSON.parse(line) as Record<string, string>;
    const rollout = { prompts: 2, count: 3, maxTokens: 20 };
    const cached = async (times: number) => {
      const long = Object.fromEntries(Object.entries(row).map(([key, text]) => [key, text.repeat(times)]));
      writeFileSync(join(folder, "rows.jsonl"), JSON.stringify(long));
      const plan = await dryRun({ ...settings, rollout, data: { train: [join(folder, "rows.jsonl")], eval: [] } });
      return [plan.promptTokens.max, plan.memory.keyValueCache];
    };
    const json = JSON.parse(readFileSync(join(settings.model ?? "", "config.json"), "utf8")) as Record<string, number>;
    const block = 64 * 2 * 4 * json.num_hidden_layers! * json.hidden_size!;
    const [short, long] = [await cached(1), await cached(6)];
    expect([short[0], long[0]]).toEqual([14, 74]);
    expect([short[1], long[1]]).toEqual([6 * block, (2 + 6) * block]);
  });

  test("counts what layers that slide see, and of the others everything", async () => {
    const settings = exampleSettings();
    const names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(settings.model ?? "", name))]));
    const shape = { vocabSize: 64, hiddenSize: 64, numLayers: 6, numHeads: 4, numKvHeads: 2, maxLength: 1000 };
    const cached = async (modelType: "llama" | "gemma3_text") => {
      const model = mkdtempSync(join(tmpdir(), "rlsd-plan-"));
      const slides = modelType === "gemma3_text";
      await using policy = await createPolicy(
        { ...shape, modelType, ...(slides && { slidingWindow: { size: 100 } }) },
        { files },
      );
      await policy.save(model);
      const { memory } = await dryRun({ ...settings, model, rollout: { prompts: 2, count: 3, maxTokens: 800 } });
      const sequences = 2 * 3;
      return (memory.keyValueCache ?? 0) / (sequences * 64 * 2 * policy.config.numKvHeads * policy.config.headDim * 4);
    };
    // A prompt of a block's part and 800 tokens in 13 blocks; five of six layers see 100 tokens, in three blocks at most.
    expect(await cached("llama")).toBe(6 * 13);
    expect(await cached("gemma3_text")).toBe(1 * 13 + 5 * 3);
  });
});

test("docs/training.md lists every setting with its default and what it may be", () => {
  const text = readFileSync(join(__dirname, "../docs/training.md"), "utf8");
  for (const { name, default: fallback, doc } of describeSettings(trainSchema)) {
    const shown = fallback.length > 40 ? "see `--settings`" : `\`${fallback}\``;
    expect(text).toContain(`| \`${name}\` | ${shown} | ${doc} |\n`);
  }
});
