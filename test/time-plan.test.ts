import { join } from "node:path";
import type { Completion, Policy, SamplingOptions } from "../lib/policy/policy.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { evaluationDue } from "../lib/trainer/milestones.js";
import type { Materials } from "../lib/trainer/prepare.js";
import { evaluationsOf, planTime, type TimePlan } from "../lib/trainer/time-plan.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const row = (tokens: number) => ({ ids: new Int32Array(tokens) });
/** Four training rows of 10 tokens on average, two held-out ones of 20. */
const materials = { train: [8, 12, 8, 12].map(row), eval: [20, 20].map(row) } as unknown as Materials;

const configOf = (o: TrainConfig): ResolvedConfig =>
  resolveConfig({
    model: "m",
    data: { train: ["t.jsonl"], eval: ["e.jsonl"] },
    steps: 10,
    eval: { every: 0, atStart: true },
    ...o,
    rollout: { prompts: 4, count: 2, maxTokens: 100, ...o.rollout },
  });

/** A policy on a clock of its own, in seconds: a token of a prompt takes `read`, and each that is drawn `draw`. */
function clocked({ read, draw, length = 100 }: { read: number; draw: number; length?: number }) {
  const calls: number[] = [];
  const generate = async (prompts: readonly Int32Array[], o: SamplingOptions): Promise<Completion[][]> => {
    calls.push(prompts.length);
    jest.advanceTimersByTime(1000 * read * prompts.reduce((n, ids) => n + ids.length, 0));
    for (let t = 0; t < Math.min(length, o.maxTokens as number); t++) {
      for (let i = 0; i < prompts.length * o.count!; i++) {
        if (t > 0) jest.advanceTimersByTime(1000 * draw);
        o.signal?.throwIfAborted();
        o.onToken?.(Math.floor(i / o.count!), i % o.count!, 7, -1);
      }
    }
    return [];
  };
  return { policy: { generate } as unknown as Policy, calls };
}

const plan = (o: TrainConfig, times: Parameters<typeof clocked>[0], own = true) =>
  planTime(configOf(o), clocked(times).policy, materials, { own, teacher: 30, traces: 25 });

describe("the time of a run", () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  const near = (range: { from: number; to: number }) => ({
    from: expect.closeTo(range.from, 6),
    to: expect.closeTo(range.to, 6),
  });

  // A step: 40 tokens of prompts; 8 completions of 5 tokens, as they were drawn, or of 100.
  const [read, draw, short, long] = [0.001, 0.0005, 8 * 5, 8 * 100];
  const reading = (completions: number) => read * (40 + completions);
  const evaluation = { from: (read * 40 + draw * 2 * 5) / 2, to: 2 * (read * 40 + draw * 2 * 100) };

  test("is that of drawing and of learning from half of the completions or all, a factor of two either way", async () => {
    const drawing = (completions: number) => read * 40 + draw * completions;
    const step = { from: (drawing(short) + 0.5 * 3 * reading(short)) / 2, to: 2 * (drawing(long) + 3 * reading(long)) };
    expect(await plan({ algorithm: "grpo" }, { read, draw, length: 5 })).toEqual({
      step: near(step),
      evaluation: near(evaluation),
      run: near({ from: 10 * step.from + 2 * evaluation.from, to: 10 * step.to + 2 * evaluation.to }),
    } satisfies TimePlan);
  });

  test.each<[TrainConfig, number, number]>([
    [{ algorithm: "grpo", update: { recompute: true } }, 4, 0],
    [{ algorithm: "grpo", objective: { klCoef: 0.1 } }, 4, 0],
    [{ algorithm: "grpo", update: { epochs: 2, minibatches: 2 } }, 7, 0],
    [{ algorithm: "rlsd" }, 3, 1],
    [{ algorithm: "opsd" }, 3, 1],
    [{ algorithm: "rlsd", objective: { studentSource: "old" } }, 4, 1],
  ])("counts what is read, and the teacher's prompts: %j", async (o, passes, teacher) => {
    const { step } = (await plan(o, { read, draw, length: 5 })) as TimePlan;
    const learned = passes * reading(long) + teacher * read * (4 * 30 + long);
    expect(step.to).toBeCloseTo(2 * (read * 40 + draw * long + learned), 6);
  });

  test("of traces is that of reading them", async () => {
    const { step } = (await plan({ algorithm: "sft" }, { read, draw, length: 5 })) as TimePlan;
    expect(step).toEqual(near({ from: (3 * read * (40 + 100)) / 2, to: 2 * 3 * read * (40 + 100) }));
  });

  test("is measured on one prompt where that is slow, and on those of a step where it is quick", async () => {
    const slow = clocked({ read: 0.1, draw: 0.01 });
    const quick = clocked({ read, draw });
    for (const { policy } of [slow, quick]) {
      await planTime(configOf({}), policy, materials, { own: true, teacher: 0, traces: 0 });
    }
    expect([slow.calls, quick.calls]).toEqual([[1], [1, 4, 4, 4, 4, 4]]);
  });

  test("is taken of what was drawn until the time was over, and not known without a second token", async () => {
    const rates = { read: 0.1, draw: 0.09 };
    const cut = (await plan({ algorithm: "grpo" }, rates)) as TimePlan;
    expect(cut.evaluation.to).toBeCloseTo(2 * (rates.read * 40 + rates.draw * 2 * 100), 6);
    expect(await plan({}, { read: 1, draw: 1 })).toEqual({
      unknown: "one prompt and a token behind it take longer than 2 s",
    });
  });

  test("is not tried where the model or its teacher is another one", async () => {
    const teacher = { kind: "external", model: "other" } as const;
    expect(await plan({ teacher }, { read, draw })).toEqual({ unknown: "the teacher is another model" });
    expect(await plan({ teacher, algorithm: "grpo" }, { read, draw })).toHaveProperty("step");
    expect(await plan({}, { read, draw }, false)).toEqual({ unknown: "the model is one of loadPolicy" });
  });
});

test("evaluations are counted as a run makes them", () => {
  for (const steps of [0, 1, 5, 6]) {
    for (const every of [0, 2, 3, 7]) {
      for (const atStart of [true, false]) {
        for (const held of [0, 3]) {
          const config = configOf({ steps, eval: { every, atStart } });
          const state = { evaluatedAt: -1 } as Parameters<typeof evaluationDue>[0];
          const due = Array.from({ length: steps + 1 }, (_, step) => evaluationDue({ ...state, step }, config, held));
          expect([steps, every, atStart, evaluationsOf(config, held)]).toEqual([
            steps,
            every,
            atStart,
            due.filter(Boolean).length,
          ]);
        }
      }
    }
  }
});

test("a plan tells the time, or why it does not", async () => {
  const plan = await dryRun({ ...exampleSettings(), steps: 4 });
  const { step, run } = plan.time as TimePlan;
  expect(step.from).toBeGreaterThan(0);
  expect(run.to).toBeGreaterThan(4 * step.to);
  expect(dryRunText(plan)).toMatch(
    /\ntime {7}a step \S+ m?s? ?to \S+ m?s?, an evaluation .* to .*, all 4 steps .* to .*\n {11}an estimate/,
  );
  const { folder, settings } = tinyTask();
  const tiny = { ...settings, data: { train: [join(folder, "train.jsonl")] } };
  expect(dryRunText(await dryRun(tiny, { loadPolicy: TinyPolicy.load }))).toContain(
    "\ntime       not estimated: the model is one of loadPolicy\n",
  );
});
