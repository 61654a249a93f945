/**
 * What the teacher costs: steps of GRPO, of RLSD, of RLSD whose creditMix has fallen to 0, and of OPSD, on the built-in
 * example. The learning rate is 0, so that all see the same completions at every step; steps are interleaved, so that the machine's
 * moods hit them alike. And what a step of GRPO costs beside TRL's, with the same model, prompts and sizes.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { spreadOf } from "../lib/cli/bench/statistics.js";
import { loadPolicy } from "../lib/index.js";
import { INITIAL_STATE, type RunState } from "../lib/trainer/checkpoint.js";
import { resolveConfig } from "../lib/trainer/config.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { prepare } from "../lib/trainer/prepare.js";
import { type StepContext, trainStep } from "../lib/trainer/step.js";
import { createTeacher } from "../lib/trainer/teacher.js";
import { inTurn, timed } from "./support/in-turn.js";
import { findPython, Rival } from "./support/torch.js";
import type { BenchOptions, BenchTable } from "./table.js";

const STAGES = ["rollout", "verify", "teacher", "update", "total", "processor"] as const;

interface Contender {
  readonly name: string;
  readonly context: StepContext;
  state: RunState;
  readonly times: Record<(typeof STAGES)[number], number[]>;
}

async function contender(name: string, change: object): Promise<Contender> {
  const settings = exampleSettings();
  const config = resolveConfig({
    ...settings,
    objective: { ...settings.objective, preset: "rlsd" },
    optimizer: { learningRate: 0 },
    log: { samples: 0 },
    ...change,
  });
  const policy = await loadPolicy(config.model);
  const context: StepContext = {
    config,
    materials: await prepare(config, policy),
    policy,
    teacher: config.algorithm === "grpo" ? undefined : await createTeacher(config.teacher, policy, loadPolicy),
    reference: undefined,
    journal: undefined,
    signal: new AbortController().signal,
  };
  return {
    name,
    context,
    state: INITIAL_STATE,
    times: { rollout: [], verify: [], teacher: [], update: [], total: [], processor: [] },
  };
}

const median = (values: readonly number[]): number => spreadOf(values).median;

/** Step by step against the first contender: the same completions, a moment apart. */
const ratio = (one: Contender, base: Contender, of: "total" | "processor"): number =>
  median(one.times[of].map((time, i) => time / (base.times[of][i] ?? time)));

async function nextStep(one: Contender): Promise<MetricsLine> {
  const { state, metrics } = await trainStep(one.context, one.state);
  one.state = state;
  return metrics;
}

/** Steps of our GRPO and of TRL's in turn. The first of TRL's, in which PyTorch plans its kernels, is not in the figures. */
async function besideTrl(own: Contender, steps: number, python: string | undefined): Promise<BenchTable> {
  const title = "One step of GRPO beside TRL's: the built-in example";
  const columns = ["trainer", "step (ms)", "times as long"];
  if (python === undefined) {
    const note = "not run: no Python with trl was found (RLSD_BENCH_PYTHON names one)";
    return { title, columns, rows: [], notes: [note] };
  }
  const { model, rollout } = own.context.config;
  const folder = mkdtempSync(join(tmpdir(), "rlsd-bench-"));
  try {
    cpSync(model, folder, { recursive: true });
    using rival = new Rival(python, "train_trl.py");
    const threads = availableParallelism();
    const prompts = own.context.materials.train.slice(0, rollout.prompts).map(({ text }) => text);
    const sizes = { count: rollout.count, tokens: rollout.maxTokens, threads };
    const { version } = await rival.ask<{ version: string }>({ op: "load", directory: folder, prompts, ...sizes });
    const lengths: number[] = [];
    const theirs = async () => {
      const { seconds, length } = await rival.ask<{ seconds: number; length: number }>({ op: "step" });
      lengths.push(length);
      return seconds;
    };
    const [ours = Number.NaN, others = Number.NaN] = await inTurn([timed(() => nextStep(own)), theirs], steps);
    return {
      title,
      columns,
      rows: [
        ["rlsd", 1000 * ours, 1],
        ["TRL, GRPOTrainer", 1000 * others, others / ours],
      ],
      notes: [
        `${version}, float32, ${threads} threads each, the two in turn, medians of ${steps}; its malloc keeps memory`,
        `${rollout.prompts} prompts x ${rollout.count} completions of ${median(lengths).toFixed(0)} tokens; learning rate 0, no activations computed again; draw, judge, loss, AdamW`,
      ],
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const contenders = [
    await contender("grpo", { algorithm: "grpo" }),
    await contender("rlsd", {}),
    // Step 1 has creditMix 0 and so has every later one.
    await contender("rlsd, creditMix 0", { creditSchedule: { decay: 1 } }),
    await contender("opsd", { algorithm: "opsd" }),
  ];
  const steps = quick ? 5 : 60;
  for (let step = -2; step < steps; step++) {
    for (const one of contenders) {
      const before = process.cpuUsage();
      const metrics = await nextStep(one);
      const { user, system } = process.cpuUsage(before);
      // The first two steps warm caches and compilers.
      if (step < 0) continue;
      const times: Readonly<Record<string, number>> = {
        ...metrics.time,
        processor: (user + system) / 1000,
      };
      for (const stage of STAGES) one.times[stage].push(times[stage] ?? 0);
    }
  }
  const base = contenders[0]!;
  yield {
    title: `One step of the built-in example, median of ${steps} (ms)`,
    columns: ["algorithm", ...STAGES, "of a GRPO step", "of its processor time"],
    rows: contenders.map((one) => [
      one.name,
      ...STAGES.map((stage) => median(one.times[stage])),
      ratio(one, base, "total"),
      ratio(one, base, "processor"),
    ]),
    notes: [
      "8 prompts x 8 completions of 28 tokens; 88,384 parameters; ratios are medians over pairs of steps",
      "processor: time of all threads together, which other work on the machine disturbs less than the clock's",
    ],
  };
  yield await besideTrl(base, quick ? 2 : 20, findPython("trl"));
}
