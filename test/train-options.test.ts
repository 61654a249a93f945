import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { heatMap } from "../lib/cli/heat-map.js";
import { spanMask } from "../lib/prompt/spans.js";
import { deltaAt } from "../lib/report/picture.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { readMetrics, readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { TrainHooks } from "../lib/trainer/train-hooks.js";
import type { Sample, Verifier } from "../lib/verifiers/verifier.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

interface Ran {
  readonly metrics: MetricsLine[];
  readonly samples: SampleLine[];
  readonly output: string;
}

/** A short run without evaluation, read back from its folder. */
async function ran(change: TrainConfig, hooks: Partial<TrainHooks> = {}): Promise<Ran> {
  const { settings } = tinyTask();
  const data = { train: settings.data?.train };
  await train({ ...settings, steps: 3, data, ...change }, { loadPolicy: TinyPolicy.load, ...hooks });
  const out: Ran = { metrics: [], samples: [], output: settings.output };
  for await (const line of readMetrics(settings.output)) out.metrics.push(line);
  for await (const line of readSamples(settings.output)) out.samples.push(line);
  return out;
}

const zero = (values: readonly (number | null)[]) => values.every((value) => value === 0);

describe("rewards", () => {
  test("of several verifiers are weighed and added", async () => {
    const half = (sample: Sample) => shareOfLetter(sample) / 2;
    const { samples } = await ran({
      reward: [
        { verifier: shareOfLetter, weight: 2, name: "share" },
        { verifier: half, weight: -1, name: "half" },
      ],
    });
    for (const { reward, detail } of samples) {
      const [share, other] = [detail.share, detail.half] as { reward: number }[];
      expect(reward).toBeCloseTo(2 * share.reward - other.reward, 12);
    }
  });

  test("of null leave the sample out of the loss and are counted", async () => {
    const shy = (sample: Sample) => (sample.id.endsWith("#0") ? null : shareOfLetter(sample));
    const { metrics, samples } = await ran({ reward: shy });
    expect(metrics.map((line) => line.unjudged)).toEqual([3, 3, 3]);
    const unjudged = samples.filter((sample) => sample.reward === null);
    expect(unjudged).toHaveLength(9);
    for (const sample of unjudged) {
      expect(sample.detail.reason).toBe("undecided");
      expect([sample.advantage, zero(sample.tokenAdvantages), sample.teacherLogProbs]).toEqual([0, true, []]);
    }
  });

  test("of a verifier that fails are null, never 0", async () => {
    const broken = (sample: Sample) => {
      if (sample.id.endsWith("#1")) throw new Error("out of luck");
      return shareOfLetter(sample);
    };
    const { samples } = await ran({ reward: broken });
    const failed = samples.filter((sample) => sample.id.endsWith("#1"));
    expect(failed.map((sample) => sample.reward)).toEqual(failed.map(() => null));
    expect(JSON.stringify(failed[0].detail)).toContain("out of luck");
  });

  test("of a verifier that says what no log can hold are null with the reason, and the run goes on", async () => {
    const odd: Verifier = {
      verify: async ({ id }) => ({
        reward: id.endsWith("#1") ? Number.NaN : 1,
        detail: { n: id.endsWith("#0") ? 1n : 1 },
      }),
    };
    const { samples } = await ran({ reward: odd });
    const reasons = (end: string) =>
      samples.filter(({ id }) => id.endsWith(end)).map(({ reward, detail }) => [reward, detail.reason]);
    for (const end of ["#0", "#1"]) expect(new Set(reasons(end).map(String))).toEqual(new Set([",bad-verdict"]));
    expect(reasons("#2")[0]).toEqual([1, undefined]);
  });
});

describe("groups without a difference", () => {
  // Rows whose answer comes before g in the alphabet never differ.
  const flat = (sample: Sample) => (String(sample.row.answer) < "g" ? 1 : shareOfLetter(sample));

  test("are counted, and get exactly no advantage", async () => {
    const { metrics, samples } = await ran({ reward: flat });
    expect(metrics.some((line) => Number(line.zeroVarianceFraction) > 0)).toBe(true);
    for (const sample of samples.filter((one) => one.reward === 1 && one.prompt.at(-12)! < "g")) {
      expect(sample.advantage).toBe(0);
    }
  });

  test("are replaced by other prompts where that is asked, at most so often", async () => {
    const drawn = async (maxResamples: number) => {
      const { metrics } = await ran({ reward: flat, groups: { zeroVariance: "resample", maxResamples } });
      return metrics.map((line) => Number(line.groups));
    };
    const [few, many] = [await drawn(1), await drawn(20)];
    expect(Math.max(...few)).toBeLessThanOrEqual(6);
    expect(Math.max(...many)).toBeGreaterThan(3);
    const none = await ran({ reward: () => 1, groups: { zeroVariance: "resample", maxResamples: 2 } });
    expect(none.metrics.map((line) => [line.groups, line.updates])).toEqual([
      [9, 0],
      [9, 0],
      [9, 0],
    ]);
  });

  test("weigh in the normaliser when kept, and do not when dropped", async () => {
    const norm = async (zeroVariance: "keep" | "drop") => {
      const { metrics } = await ran({ reward: flat, steps: 1, seed: 5, groups: { zeroVariance } });
      return { share: Number(metrics[0].zeroVarianceFraction), norm: Number(metrics[0].gradientNorm) };
    };
    const [keep, drop] = [await norm("keep"), await norm("drop")];
    expect(keep.share).toBeGreaterThan(0);
    expect(drop.norm).toBeGreaterThan(keep.norm * 1.2);
  });
});

describe("completions cut at their limit", () => {
  test("are left out of the loss where that is asked", async () => {
    const { samples } = await ran({ overlong: { mode: "mask" } });
    const cut = samples.filter((sample) => !sample.tokenText.includes("<end>"));
    expect(samples.filter(({ finish }) => finish === "length")).toEqual(cut);
    expect(cut.length).toBeGreaterThan(0);
    expect(cut.every((sample) => zero(sample.tokenAdvantages))).toBe(true);
  });

  test("a fine for length lowers the reward, and makes no right answer wrong", async () => {
    const { metrics } = await ran({ reward: () => 1, overlong: { mode: "penalty", buffer: 6, penalty: 5 } });
    expect(metrics.every(({ reward }) => Number(reward) < 1)).toBe(true);
    expect(metrics.map(({ accuracy }) => accuracy)).toEqual(metrics.map(() => 1));
    const { settings } = tinyTask();
    const fined = { ...settings, steps: 0, overlong: { mode: "penalty" as const, buffer: 6 }, reward: () => 1 };
    expect(await train(fined, { loadPolicy: TinyPolicy.load })).toMatchObject({ accuracy: { first: 1 } });
  });

  test("are fined where that is asked, and the fine is logged", async () => {
    const { samples } = await ran({ overlong: { mode: "penalty", penalty: 5 } });
    const cut = samples.find((sample) => !sample.tokenText.includes("<end>"))!;
    expect([cut.detail.overlongFine, cut.reward! <= -4]).toEqual([5, true]);
  });
});

describe("the update", () => {
  test("does not depend on how a batch is cut into microbatches", async () => {
    const whole = await ran({});
    const cut = await ran({ update: { microbatchTokens: 40 } });
    for (const [i, line] of whole.metrics.entries()) {
      for (const name of ["loss", "gradientNorm", "reward", "evidenceWeightMean", "ratioClippedHigh"]) {
        expect([name, cut.metrics[i][name]]).toEqual([name, expect.closeTo(Number(line[name]), 5)]);
      }
    }
  });

  test("of several passes sees ratios that leave 1", async () => {
    const { metrics } = await ran({ update: { epochs: 3 } });
    expect(metrics.map((line) => line.updates)).toEqual([3, 3, 3]);
    expect(metrics.some((line) => Math.abs(Number(line.ratioMean) - 1) > 1e-4)).toBe(true);
  });

  test("is corrected for a sampler that reports other log-probs, also where a step has one", async () => {
    const off = async (folder: string) => {
      const policy = await TinyPolicy.load(folder);
      const draw = policy.generate.bind(policy);
      policy.generate = async (prompts, o) =>
        (await draw(prompts, o)).map((group) =>
          group.map((one) => ({ ...one, logProbs: one.logProbs.map((p) => p - Math.log(2)) })),
        );
      return policy;
    };
    const norm = async (o: object, hooks: Partial<TrainHooks> = { loadPolicy: off }) => {
      const { metrics } = await ran({ steps: 1, objective: { creditMix: 0, ...o }, algorithm: "grpo" }, hooks);
      return Number(metrics[0]!.gradientNorm);
    };
    const right = await norm({}, {});
    expect(await norm({ importanceCorrection: "none" })).toBe(right);
    expect((await norm({})) / right).toBeCloseTo(2, 5);
    expect((await norm({ importanceMax: 1.5 })) / right).toBeCloseTo(1.5, 5);
    expect(await norm({ importanceCorrection: "token-mask", importanceMax: 1.5 })).toBe(0);
  });

  test("with a KL term is held to the policy at the start, which no teacher moves", async () => {
    const { metrics, output } = await ran({
      steps: 4,
      objective: { creditMix: 1, klCoef: 0.1 },
      teacher: { kind: "shared" },
      checkpoint: { every: 2 },
    });
    const kl = metrics.map((line) => Number(line.klMean));
    expect(kl[0]).toBeCloseTo(0, 6);
    expect(kl[3]).toBeGreaterThan(kl[1]);
    expect(readdirSync(join(output, "checkpoints/initial"))).toEqual(["reference"]);
  });

  test("that is not finite is skipped and counted", async () => {
    const bad = async (folder: string) => {
      const policy = await TinyPolicy.load(folder);
      policy.step = async () => ({ gradientNorm: Number.NaN, skipped: true });
      return policy;
    };
    const { metrics } = await ran({}, { loadPolicy: bad });
    expect(metrics.map((line) => [line.skippedUpdates, line.gradientNorm])).toEqual([
      [1, null],
      [1, null],
      [1, null],
    ]);
  });
});

describe("credit", () => {
  test("is given inside the span alone", async () => {
    const { samples } = await ran({ span: { open: "s", close: "y" } });
    const tokens = samples
      .filter((sample) => sample.privileged !== null)
      .flatMap(({ tokenText, tokenAdvantages, advantage }) => {
        const inside = spanMask(tokenText, { open: "s", close: "y" }, "");
        return tokenAdvantages.map((a, t) => ({
          inside: inside[t] === 1,
          moved: Math.abs(Number(a) - advantage) > 1e-5,
        }));
      });
    expect(tokens.filter((token) => token.inside).length).toBeGreaterThan(20);
    expect(tokens.some((token) => token.inside && token.moved)).toBe(true);
    expect(tokens.some((token) => !token.inside && token.moved)).toBe(false);
  });

  test.each([{}, { open: "s", close: "y" }])(
    "clipped is a share of the tokens that a teacher read, span %j",
    async (span) => {
      const { folder } = tinyTask();
      const rows = [..."abcdefghijkl"].map((c, i) => ({
        question: `say ${c}`,
        answer: c,
        ...(i % 2 && { trace: c + c }),
      }));
      writeFileSync(join(folder, "half.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
      const { metrics, samples } = await ran({
        steps: 1,
        seed: 4,
        data: { train: [join(folder, "half.jsonl")] },
        privileged: { source: "trace", template: "{{ content }}. {{ privileged }}" },
        span,
        rollout: { prompts: 8, count: 8, maxTokens: 6 },
      });
      const taught = samples.filter((sample) => sample.privileged !== null);
      const weights = taught.flatMap(({ tokenText, teacherLogProbs, logProbs, advantage }) => {
        const inside = "open" in span ? spanMask(tokenText, { open: "s", close: "y" }, "") : tokenText.map(() => 1);
        const delta = teacherLogProbs.map((p, t) => Number(p) - Number(logProbs[t]));
        return delta.flatMap((d, t) => (inside[t] === 1 ? [Math.exp(Math.sign(advantage) * d)] : []));
      });
      const share = (beyond: (w: number) => boolean) => weights.filter(beyond).length / weights.length;
      const [low, high] = [share((w) => w < 0.8), share((w) => w > 1.2)];
      expect([taught.length < samples.length, low > 0, high > 0]).toEqual([true, true, true]);
      const { evidenceClippedLow, evidenceClippedHigh } = metrics[0]!;
      expect([evidenceClippedLow, evidenceClippedHigh]).toEqual([expect.closeTo(low, 6), expect.closeTo(high, 6)]);
    },
  );

  test("is 1 for the only rejected completion of a group where it is contrasted with another, however a batch is cut", async () => {
    const reward = (sample: Sample) => (sample.id.endsWith("#0") ? 0 : 1);
    const { samples } = await ran({
      reward,
      privileged: { contrast: true, template: "{{ content }}. {{ privileged }}" },
      update: { microbatchTokens: 1 },
    });
    const alone = samples.filter((sample) => sample.reward === 0);
    expect(alone.length).toBe(9);
    for (const { tokenAdvantages, advantage } of alone) {
      expect(tokenAdvantages).toEqual(tokenAdvantages.map(() => expect.closeTo(advantage, 5)));
    }
  });

  test("listens to a privileged text that a function builds", async () => {
    const { samples } = await ran({}, { privileged: ({ rollout }) => `own ${rollout.id}`.replace("#", " ") });
    const told = samples.filter((sample) => sample.privileged !== null);
    expect(told.length).toBeGreaterThan(0);
    expect(told.every((sample) => sample.privileged === `own ${sample.id}`.replace("#", " "))).toBe(true);
  });

  test("against the policy before the update can be had with one update too", async () => {
    const [current, old] = [await ran({}), await ran({ objective: { creditMix: 1, studentSource: "old" } })];
    const means = ({ metrics }: Ran) => metrics.map((line) => Number(line.evidenceWeightMean));
    expect(means(old)).toEqual(means(current).map((value) => expect.closeTo(value, 5)));
  });

  test("that is not given colours no token of a page: its logged weight is 1", async () => {
    const change = [{ span: { open: "s", close: "y" } }, { objective: { creditMix: 1, negativeOnly: true } }];
    for (const settings of change) {
      const { samples } = await ran(settings);
      const tokens = samples
        .filter((sample) => sample.privileged !== null)
        .flatMap(({ evidenceWeights, tokenAdvantages, advantage }) =>
          evidenceWeights.map((w, t) => [Number(w), Number(tokenAdvantages[t]) / advantage] as const),
        );
      expect(tokens.filter(([w]) => Math.abs(w - 1) > 0.01).length).toBeGreaterThan(5);
      expect(tokens.map(([w]) => w)).toEqual(tokens.map(([, rho]) => expect.closeTo(rho, 4)));
    }
  });

  test("of a contrast can be told from the log: weights are those of the teacher over the other", async () => {
    const contrast = { privileged: { contrast: true, template: "{{ content }}. {{ privileged }}" } };
    const { samples } = await ran({ ...contrast, objective: { creditMix: 1, evidenceClip: 0.9 } });
    const seen = samples.filter((sample) => sample.privileged !== null);
    expect(seen.length).toBeGreaterThan(20);
    for (const sample of seen) {
      expect(sample.contrastLogProbs).toHaveLength(sample.tokenIds.length);
      const unclipped = sample.tokenIds.map((_, t) => Math.exp(Math.sign(sample.advantage) * deltaAt(sample, t)!));
      const weights = unclipped.map((w) => Math.min(1.9, Math.max(0.1, w)));
      expect(sample.evidenceWeights).toEqual(weights.map((w) => expect.closeTo(w, 4)));
    }
    const text = heatMap(seen[0]!, { color: false, clip: 0.9, rewarded: true });
    expect(text).toMatch(/log P +teacher +contrast +delta/);
    const { samples: plain } = await ran({});
    expect(plain.some((sample) => "contrastLogProbs" in sample)).toBe(false);
  });

  test("comes from an external teacher", async () => {
    const { settings } = tinyTask();
    const { metrics } = await ran({ teacher: { kind: "external", model: settings.model! } });
    expect(metrics.every((line) => Number(line.teacherSequences) > 0)).toBe(true);
  });

  test("is missing, and counted, where a sample has no privileged text", async () => {
    const { metrics } = await ran({ privileged: { source: "sibling", template: "{{ content }}{{ privileged }}" } });
    expect(metrics.map((line) => line.noPrivilegeFraction)).toEqual([1, 1, 1]);
    const masked = await ran({ overlong: { mode: "mask" }, privileged: { source: "sibling" } });
    expect(masked.metrics.some((line) => Number(line.truncatedFraction) > 0)).toBe(true);
    // A step whose completions were all cut has none in the loss that could lack any.
    const seen = masked.metrics.map((line) => Number(Number(line.updates) > 0));
    expect(seen).toContain(1);
    expect(masked.metrics.map((line) => line.noPrivilegeFraction)).toEqual(seen);
    expect(metrics.every((line) => line.evidenceWeightMean === undefined && Number(line.updates) === 1)).toBe(true);
  });
});
