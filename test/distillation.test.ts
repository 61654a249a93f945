import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EnginePolicy, type Policy, reportRun } from "../lib/index.js";
import { grpo } from "../lib/objectives/presets.js";
import { loadPolicy } from "../lib/policy/load.js";
import type { DistillOptions } from "../lib/policy/policy.js";
import { resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { sampledAdvantages } from "../lib/trainer/distillation.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { type PrivilegedInput, privilegedText } from "../lib/trainer/privileged-text.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { train } from "../lib/trainer/train.js";
import { fewRows } from "./support/clock-task.js";
import { jsonLines, metricsOf, weightsOf } from "./support/run-files.js";
import { relativeError } from "./support/safetensors.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const folderOf = (name: string) => mkdtempSync(join(tmpdir(), `rlsd-distillation-${name}-`));

const few = fewRows(folderOf("rows"));

/** The built-in example, one step of it, with every completion logged. */
const example = (o: TrainConfig = {}) => ({
  ...exampleSettings(),
  algorithm: "opsd" as const,
  steps: 1,
  data: { ...exampleSettings().data, train: [few] },
  ...o,
  rollout: { ...exampleSettings().rollout, prompts: 4, count: 4, ...o.rollout },
  log: { samples: 16 },
  output: o.output ?? join(folderOf("run"), "run"),
  eval: { every: 0, atStart: false, limit: 20, ...o.eval },
});

const samplesOf = (run: string) => jsonLines<SampleLine>(readFileSync(join(run, "samples.jsonl"), "utf8"));

/** What a run's first step drew, as the student read it and as the teacher did. */
function lessonsOf(samples: readonly SampleLine[], policy: EnginePolicy, template: string) {
  const encode = (text: string) => policy.tokenizer!.encode(text);
  return {
    sequences: samples.map(({ prompt, tokenIds }) => ({
      prompt: encode(prompt),
      completion: Int32Array.from(tokenIds),
    })),
    teacherSequences: samples.map(({ prompt, privileged, tokenIds }) => {
      const content = prompt.slice("<|user|>".length, -"<|assistant|>".length);
      const shown = template.replace("{{ content }}", content).replace("{{ privileged }}", privileged!);
      return { prompt: encode(`<|user|>${shown}<|assistant|>`), completion: Int32Array.from(tokenIds) };
    }),
  };
}

const TEMPLATE = exampleSettings().privileged!.template!;
const step = { learningRate: 2e-4 / 10, weightDecay: 0 };

/** The weights that a student has after one step on what the run drew, by hand. */
async function byHand(
  { output, model }: { readonly output: string; readonly model?: string | undefined },
  pass: (policy: EnginePolicy, teacher: EnginePolicy, lessons: ReturnType<typeof lessonsOf>) => Promise<void>,
): Promise<Buffer> {
  await using policy = await loadPolicy(model!);
  await using teacher = await policy.snapshot();
  await pass(policy, teacher, lessonsOf(samplesOf(output), policy, TEMPLATE));
  await policy.step(step);
  const folder = join(folderOf("hand"), "model");
  await policy.save(folder);
  return readFileSync(join(folder, "model.safetensors"));
}

describe("on-policy self-distillation", () => {
  test.each<[Record<string, unknown>, DistillOptions]>([
    [{}, { divergence: "jsd" }],
    [
      { divergence: "forward-kl", valueClamp: 0.5 },
      { divergence: "forward-kl", valueClamp: 0.5 },
    ],
    [
      { divergence: "jsd", beta: 0.2, topK: 4, tail: false },
      { divergence: "jsd", beta: 0.2, topK: 4, tail: false },
    ],
  ])(
    "is the divergence of the privileged teacher on what was drawn: the weights of a step by hand: %j",
    async (distill, options) => {
      const settings = example({ distill });
      const { checkpoint } = await train(settings);
      let loss = Number.NaN;
      const wanted = await byHand(settings, async (policy, teacher, lessons) => {
        ({ loss } = await policy.distill({ ...lessons, teacher }, options));
      });
      expect(weightsOf(checkpoint).equals(wanted)).toBe(true);
      const [line] = await metricsOf(settings.output, "train");
      expect(line).toMatchObject({
        loss,
        divergenceMean: expect.closeTo(loss, 12),
        teacherSequences: 16,
        noPrivilegeFraction: 0,
        updates: 1,
      });
    },
  );

  test("is the same however an update is cut, and takes the reduction of the objective", async () => {
    const whole = example({ objective: { preset: "rlsd", reduction: "sequence-sum" } });
    const cut = example({ ...whole, output: join(folderOf("cut"), "run"), update: { microbatchTokens: 60 } });
    await train(whole);
    await train(cut);
    const [[a], [b]] = [await metricsOf(whole.output, "train"), await metricsOf(cut.output, "train")];
    expect(b!.loss).toBeCloseTo(a!.loss as number, 6);
    expect(b!.gradientNorm).toBeCloseTo(a!.gradientNorm as number, 5);
    // 16 sequences of 28 tokens: the sum of a sequence is 28 times its mean.
    expect((a!.loss as number) / (a!.divergenceMean as number)).toBeCloseTo(28, 4);
  });

  test("learns from groups whose rewards are all alike, and the verdicts are only told", async () => {
    const settings = example({ reward: () => 0 });
    await train(settings);
    const [line] = await metricsOf(settings.output, "train");
    expect(line).toMatchObject({ zeroVarianceFraction: 1, reward: 0, teacherSequences: 16, updates: 1 });
    expect(line!.divergenceMean).toBeGreaterThan(0);
  });

  test("needs no group: one completion of each prompt will do, where no verdict is learned from", async () => {
    const settings = example({ rollout: { prompts: 16, count: 1 } });
    await train(settings);
    const [line] = await metricsOf(settings.output, "train");
    expect(line).toMatchObject({ groups: 16, teacherSequences: 16, updates: 1 });
    expect(samplesOf(settings.output).every(({ advantage }) => advantage === 0)).toBe(true);
    for (const algorithm of ["rlsd", "grpo", "grpo+opsd"] as const) {
      expect(() => resolveConfig(example({ algorithm, rollout: { count: 1 } }))).toThrow(
        /a group of one has no baseline/,
      );
    }
  });

  test("logs each token's divergence, which is 0 outside the span", async () => {
    const settings = example({ span: { open: "Answer:", close: "<|end|>" } });
    await train(settings);
    for (const { divergences, tokenText, privileged, teacherLogProbs } of samplesOf(settings.output)) {
      expect(privileged).toMatch(/Answer/);
      expect(teacherLogProbs).toEqual([]);
      const begin = tokenText.join("").indexOf("Answer:");
      const inside = tokenText.map((_, t) => begin >= 0 && tokenText.slice(0, t + 1).join("").length > begin + 7);
      expect(divergences!.every((d, t) => inside[t] || d === 0)).toBe(true);
    }
    const spanned = samplesOf(settings.output).flatMap(({ divergences }) => divergences!.filter((d) => d! > 0));
    expect(spanned.length).toBeGreaterThan(0);
  });

  test("teaches the built-in example with a frozen teacher, and ruins it with a live one", async () => {
    const o: TrainConfig = { rollout: { prompts: 8, count: 8 }, eval: { atStart: true, limit: 100 } };
    const frozen = await train(example({ ...o, steps: 30 }));
    const live = example({ ...o, steps: 60, teacher: { kind: "shared" } });
    const { accuracy } = await train(live);
    expect(frozen.accuracy!.last).toBeGreaterThan(0.8);
    expect(accuracy!.last).toBeLessThan(0.4);
  });

  test.each([
    { algorithm: "opsd", teacher: { kind: "ema", rate: 0.9 } },
    { algorithm: "opsd", teacher: { kind: "shared" } },
    { algorithm: "opsd", distill: { divergence: "sampled-reverse-kl" } },
    { algorithm: "grpo+opsd", lora: { rank: 4 }, teacher: { kind: "base" } },
  ] satisfies TrainConfig[])("goes on from a checkpoint to the same bits: %j", async (o) => {
    const weightsFile = "lora" in o ? "adapter_model.safetensors" : "model.safetensors";
    const read = (checkpoint: string) => readFileSync(join(checkpoint, "model", weightsFile));
    const straight = await train(example({ ...o, steps: 4 }));
    const output = join(folderOf("resumed"), "run");
    await train(example({ ...o, steps: 2, output }));
    const resumed = await train(example({ ...o, steps: 4, output }), { resume: output });
    expect(read(resumed.checkpoint).equals(read(straight.checkpoint))).toBe(true);
  });
});

describe("the reverse KL at drawn tokens", () => {
  test("is a policy gradient whose advantages are what the teacher says more of a token", async () => {
    const settings = example({ distill: { divergence: "sampled-reverse-kl" }, objective: { preset: "grpo" } });
    const { checkpoint } = await train(settings);
    const samples = samplesOf(settings.output);
    const wanted = await byHand(settings, async (policy, teacher, { sequences, teacherSequences }) => {
      const said = await teacher.score(teacherSequences);
      // As they were drawn: the log has fewer digits.
      const own = await policy.score(sequences);
      const advantages = Float32Array.from(said.flatMap((row, b) => Array.from(row, (p, t) => p - own[b]![t]!)));
      await policy.accumulate({ sequences, advantages }, grpo());
    });
    const [actual, hand] = [weightsOf(checkpoint), wanted].map(
      (bytes) => new Float32Array(bytes.buffer.slice((bytes.length % 4) + bytes.byteOffset)),
    );
    expect(relativeError(actual!, hand!)).toBeLessThan(1e-3);
    const [line] = await metricsOf(settings.output, "train");
    const differences = samples.flatMap(({ logProbs, teacherLogProbs }) =>
      logProbs.map((p, t) => p! - teacherLogProbs[t]!),
    );
    expect(line!.divergenceMean).toBeCloseTo(differences.reduce((a, b) => a + b, 0) / differences.length, 4);
    for (const { tokenAdvantages, logProbs, teacherLogProbs, evidenceWeights } of samples) {
      expect(evidenceWeights).toEqual([]);
      tokenAdvantages.forEach((one, t) => {
        expect(one).toBeCloseTo(teacherLogProbs[t]! - logProbs[t]!, 3);
      });
    }
  });

  test("is bounded, and nothing where the teacher's word is no number or the token outside the span", () => {
    const teacher = Float32Array.of(-1, Number.NEGATIVE_INFINITY, Number.NaN, -50, -2);
    const student = Float32Array.of(-2, -1, -1, -1, -1);
    const { distill } = resolveConfig(example({ distill: { divergence: "sampled-reverse-kl" } }));
    const span = Uint8Array.of(1, 1, 1, 1, 0);
    expect([...sampledAdvantages(teacher, student, span, distill)]).toEqual([1, -10, 0, -10, 0]);
    expect([...sampledAdvantages(teacher, student, undefined, { ...distill, valueClamp: 3 })]).toEqual([
      1, -3, 0, -3, -1,
    ]);
  });
});

describe("grpo and self-distillation together", () => {
  test("add up their gradients, the second by its weight", async () => {
    const settings = example({ algorithm: "grpo+opsd", distill: { weight: 0.25 } });
    const { checkpoint } = await train(settings);
    const wanted = await byHand(settings, async (policy, teacher, lessons) => {
      const samples = samplesOf(settings.output);
      const advantages = Float32Array.from(samples, ({ advantage }) => advantage);
      const moving = samples.flatMap(({ advantage }, i) => (advantage === 0 ? [] : [i]));
      const batch = {
        sequences: moving.map((i) => lessons.sequences[i]!),
        advantages: Float32Array.from(moving, (i) => advantages[i]!),
      };
      await policy.accumulate(batch, grpo({ normalizer: 16 }));
      await policy.distill(
        { ...lessons, teacher },
        { divergence: "jsd", reduction: "sequence-mean" },
        { lossScale: 0.25 },
      );
    });
    expect(weightsOf(checkpoint).equals(wanted)).toBe(true);
  });

  test("with a weight of 0 are grpo, to the bit, and ask no teacher", async () => {
    const [both, alone] = [example({ algorithm: "grpo+opsd", distill: { weight: 0 } }), example({ algorithm: "grpo" })];
    const [a, b] = [await train(both), await train(alone)];
    expect(weightsOf(a.checkpoint).equals(weightsOf(b.checkpoint))).toBe(true);
    const [line] = await metricsOf(both.output, "train");
    expect(line).toMatchObject({ teacherSequences: 0 });
    expect(line).not.toHaveProperty("divergenceMean");
  });

  test("add what the teacher says more of a token to the advantage, where that is asked", async () => {
    const distill = { weight: 0.5, divergence: "sampled-reverse-kl" as const };
    const settings = example({ algorithm: "grpo+opsd", distill });
    await train(settings);
    for (const { advantage, tokenAdvantages, logProbs, teacherLogProbs } of samplesOf(settings.output)) {
      tokenAdvantages.forEach((one, t) => {
        expect(one).toBeCloseTo(advantage + 0.5 * (teacherLogProbs[t]! - logProbs[t]!), 3);
      });
    }
  });
});

describe("sdpo", () => {
  const input = (right: string | null, feedback: string | null): PrivilegedInput => {
    const { settings } = tinyTask();
    const verdict = { reward: 0, ...(feedback !== null && { detail: { feedback } }) };
    const rollout = { text: "wrong" };
    const siblings = [
      { rollout, verdict },
      ...(right === null ? [] : [{ rollout: { text: right }, verdict: { reward: 1 } }]),
    ];
    return { example: settings, rollout, verdict, siblings } as unknown as PrivilegedInput;
  };
  const config = resolveConfig(example({ algorithm: "sdpo", privileged: { source: "auto" } }));

  test("shows the teacher a successful sibling and what was said of the attempt, as far as there are any", () => {
    expect(config.privileged.source).toBe("sibling+feedback");
    const told = "What was said of an earlier attempt:\nsyntax error";
    expect(privilegedText(input("right", "syntax error"), config)).toBe(`right\n\n${told}`);
    expect(privilegedText(input("right", null), config)).toBe("right");
    expect(privilegedText(input(null, "syntax error"), config)).toBe(told);
    expect(privilegedText(input(null, null), config)).toBeNull();
  });

  test("leaves completions without either out of the loss and out of its mean", async () => {
    const settings = example({ algorithm: "sdpo", privileged: { source: "auto" } });
    await train(settings);
    const samples = samplesOf(settings.output);
    const taught = samples.filter(({ privileged: text }) => text !== null);
    expect(taught.length).toBeGreaterThan(0);
    expect(taught.length).toBeLessThan(16);
    const [line] = await metricsOf(settings.output, "train");
    expect(line).toMatchObject({ teacherSequences: taught.length, noPrivilegeFraction: 1 - taught.length / 16 });
    const all = taught.flatMap(({ divergences }) => divergences as number[]);
    expect(line!.loss).toBeCloseTo(all.reduce((a, b) => a + b, 0) / all.length, 4);
    for (const { divergences } of samples.filter(({ privileged: text }) => text === null))
      expect(divergences).toBeUndefined();
  });

  test("refuses privileged text that rows bring", () => {
    for (const source of ["trace", "none"] as const) {
      expect(() => resolveConfig(example({ algorithm: "sdpo", privileged: { source } }))).toThrow(
        /sibling\+feedback|none/,
      );
    }
  });
});

describe("distillation from another model", () => {
  test("reads the student's own prompts, and needs no privileged text", async () => {
    const tutor = example({ algorithm: "sft", steps: 30 });
    const { checkpoint } = await train(tutor);
    const settings = example({
      algorithm: "opd",
      steps: 20,
      rollout: { prompts: 8, count: 8 },
      teacher: { kind: "external", model: tutor.output },
      privileged: { source: "none" },
      eval: { atStart: true, limit: 100 },
    });
    const { accuracy } = await train(settings);
    expect(accuracy!.first).toBeLessThan(0.5);
    expect(accuracy!.last).toBeGreaterThan(0.75);
    const [sample] = samplesOf(settings.output);
    expect(sample!.privileged).toBe("");
    const plan = await dryRun({ ...settings, output: "" });
    expect(plan.config.teacher.model).toBe(join(checkpoint, "model"));
    expect(plan.privileged).toMatchObject({ none: 0, whole: 0 });
    expect(plan.asked.teacher).toBeNull();
    expect(dryRunText(plan)).toContain("teacher    external; reads the student's own prompts");
    expect(plan.memory.teacher).toBeGreaterThan(4 * 88_000);
  });

  test.each<[TrainConfig, RegExp]>([
    [{ algorithm: "opd" }, /opd learns from another model.*"teacher.kind" is frozen.*teacher.model.*opsd/],
    [{ privileged: { contrast: true } }, /"privileged.contrast" is for the credit/],
    [{ privileged: { source: "none" } }, /opsd needs privileged text/],
    [{ distill: { divergence: "sampled-reverse-kl", topK: 4 } }, /"distill.topK" compares distributions/],
    [
      { distill: { divergence: "k1" as never } },
      /one of jsd, forward-kl, reverse-kl, sampled-reverse-kl for "distill.divergence"/,
    ],
  ])("settings that cannot work are refused: %j", (o, message) => {
    expect(() => resolveConfig(example(o))).toThrow(message);
  });

  test("a policy that cannot compare distributions is refused before anything is written, with the way out", async () => {
    const { settings } = tinyTask();
    const loadTiny = (directory: string): Promise<Policy> => TinyPolicy.load(directory);
    const refused = train({ ...settings, algorithm: "opsd" }, { loadPolicy: loadTiny });
    await expect(refused).rejects.toMatchObject({ code: "ERR_RLSD_CONFIG" });
    await expect(refused).rejects.toThrow(/the policy has no distill\(\).*sampled-reverse-kl/);
    expect(() => readFileSync(join(settings.output, "config.json"))).toThrow(/ENOENT/);
    const { steps } = { steps: 2 };
    const sampled = {
      ...settings,
      steps,
      algorithm: "opsd" as const,
      distill: { divergence: "sampled-reverse-kl" as const },
    };
    await train(sampled, { loadPolicy: loadTiny });
    const [line] = await metricsOf(settings.output, "train");
    expect(line!.teacherSequences).toBe(24);
  });

  test("a teacher with another vocabulary is refused, in the plan too", async () => {
    const teacher = join(__dirname, "fixtures/models/qwen2-bias");
    const settings = example({ algorithm: "opd", teacher: { kind: "external", model: teacher } });
    await expect(dryRun(settings)).rejects.toThrow(
      /vocabulary has \d+ entries and the student's \d+.*sampled-reverse-kl/,
    );
    await expect(train(settings)).rejects.toThrow(/vocabulary has \d+ entries|has another vocabulary/);
  });
});

describe("the report of a run that imitates its teacher", () => {
  const pageOf = async (o: TrainConfig) => {
    const settings = example({ steps: 2, ...o });
    await train(settings);
    return readFileSync((await reportRun(settings.output)).report, "utf8");
  };

  test("colours tokens by their divergence, and draws its curve", async () => {
    const page = await pageOf({});
    expect(page).toContain("<h2>Divergence from the teacher, token by token</h2>");
    expect(page).toMatch(/data-r="log P student -?[\d.]+ · divergence [\d.e-]+"/);
    // Verdicts are counted here: a completion has no advantage that anything was learned from.
    expect(page).not.toMatch(/ · A |<span class="a">|id="by-side"|class="sample (up|down)"/);
    expect(page).toContain("<b>Divergence");
    expect(page).toContain("opsd on <code>");
    expect(page).toContain(", teacher frozen with trace");
    // The loudest token of each completion that has one is coloured in full.
    expect(page).toMatch(/style="background:rgb\(var\(--more\)\/0.75\)/);
  });

  test("or by what the teacher says of the drawn tokens", async () => {
    const page = await pageOf({ distill: { divergence: "sampled-reverse-kl" } });
    expect(page).toContain("<h2>What the teacher says of the drawn tokens</h2>");
    expect(page).toMatch(/data-r="log P student [^"]* · log P teacher [^"]* · delta [^"]* · A [^"]*"/);
    expect(page).not.toContain("No teacher spoke");
  });

  test("with advantages where verdicts are learned from too", async () => {
    const page = await pageOf({ algorithm: "grpo+opsd" });
    expect(page).toMatch(/ · divergence [^"]* · A [^"]+"/);
    expect(page).toMatch(/id="by-side".*<span class="a">A /s);
  });
});
