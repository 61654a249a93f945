/**
 * What the credit costs: steps of GRPO, of RLSD, and of RLSD whose creditMix has fallen to 0, on the built-in example. The
 * learning rate is 0, so that all three see the same completions at every step; steps are interleaved, so that the machine's
 * moods hit them alike.
 */
import { loadPolicy } from "../lib/index.js";
import { INITIAL_STATE, type RunState } from "../lib/trainer/checkpoint.js";
import { resolveConfig } from "../lib/trainer/config.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { prepare } from "../lib/trainer/prepare.js";
import { type StepContext, trainStep } from "../lib/trainer/step.js";
import { createTeacher } from "../lib/trainer/teacher.js";
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

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Step by step against the first contender: the same completions, a moment apart. */
const ratio = (one: Contender, base: Contender, of: "total" | "processor"): number =>
  median(one.times[of].map((time, i) => time / (base.times[of][i] ?? time)));

export async function run({ quick }: BenchOptions): Promise<BenchTable[]> {
  const contenders = [
    await contender("grpo", { algorithm: "grpo" }),
    await contender("rlsd", {}),
    // Step 1 has creditMix 0 and so has every later one.
    await contender("rlsd, creditMix 0", { creditSchedule: { decay: 1 } }),
  ];
  const steps = quick ? 5 : 60;
  for (let step = -2; step < steps; step++) {
    for (const one of contenders) {
      const before = process.cpuUsage();
      const { state, metrics } = await trainStep(one.context, one.state);
      const { user, system } = process.cpuUsage(before);
      one.state = state;
      // The first two steps warm caches and compilers.
      if (step < 0) continue;
      const times: Readonly<Record<string, number>> = { ...metrics.time, processor: (user + system) / 1000 };
      for (const stage of STAGES) one.times[stage].push(times[stage] ?? 0);
    }
  }
  const base = contenders[0]!;
  return [
    {
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
    },
  ];
}
