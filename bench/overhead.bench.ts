/** What one call costs beyond its arithmetic: a 32-token batch against an empty native call. */
import { Bench } from "tinybench";
import { grpo, type PolicyOut, policyLoss, policyLossSync, rlsd, rlsdCredit } from "../lib/index.js";
import { native } from "../lib/native/load.js";
import type { BenchOptions, BenchTable } from "./table.js";

const TOKENS = 32;

const values = (seed: number): Float32Array =>
  Float32Array.from({ length: TOKENS }, (_, i) => -((i * 37 + seed * 11) % 29) / 10);

function makeBatch() {
  return {
    student: { logProbs: values(1) },
    teacher: { logProbs: values(2) },
    oldLogProbs: values(3),
    cuSeqlens: Int32Array.of(0, 8, 16, 24, 32),
    advantages: Float32Array.of(1, -1, 0.5, -0.5),
  };
}

function makeOut(): PolicyOut {
  const array = () => new Float32Array(TOKENS);
  return {
    logProbs: array(),
    teacherLogProbs: array(),
    tokenAdvantages: array(),
    evidenceWeights: array(),
    gradientLogProbs: array(),
  };
}

/** Calls in one sample: a timer read costs as much as a small call. */
const CALLS = 200;

function repeat(call: () => unknown): () => void {
  return () => {
    for (let i = 0; i < CALLS; i++) call();
  };
}

export async function run({ quick }: BenchOptions): Promise<BenchTable[]> {
  const { teacher, ...plain } = makeBatch();
  const batch = { ...plain, teacher };
  const call = { out: makeOut() };
  const bare = grpo();
  const credited = rlsd();
  const credit = {
    logProbs: values(1),
    teacherLogProbs: values(2),
    advantages: batch.advantages,
    cuSeqlens: batch.cuSeqlens,
  };
  const bench = new Bench({ time: quick ? 50 : 1500, warmupTime: quick ? 10 : 300 });
  const queued = async () => {
    for (let i = 0; i < CALLS; i++) await policyLoss(batch, credited);
  };
  bench
    .add(
      "empty native call",
      repeat(() => native.noop()),
    )
    .add(
      "grpo(), into out",
      repeat(() => policyLossSync(plain, bare, call)),
    )
    .add(
      "rlsd(), into out",
      repeat(() => policyLossSync(batch, credited, call)),
    )
    .add(
      "rlsd(), results allocated",
      repeat(() => policyLossSync(batch, credited)),
    )
    .add(
      "rlsdCredit()",
      repeat(() => rlsdCredit(credit)),
    )
    .add("rlsd(), queued and awaited", queued, { async: true });
  await bench.run();
  const microseconds = (milliseconds: number | undefined) => ((milliseconds ?? Number.NaN) * 1000) / CALLS;
  const rows = bench.tasks.map((task) => {
    const latency = "latency" in task.result ? task.result.latency : undefined;
    return [task.name, microseconds(latency?.min), microseconds(latency?.p50), microseconds(latency?.p75)];
  });
  return [
    {
      title: `One call on ${TOKENS} tokens in 4 sequences, microseconds`,
      columns: ["call", "least", "median", "p75"],
      rows,
      notes: ["Targets: under 3 us into the caller's arrays, under 5 us with results allocated."],
    },
  ];
}
