/** What one call costs beyond its arithmetic: a 32-token batch against an empty native call. */
import { Bench } from "tinybench";
import { logProbBatch, logProbOut } from "../lib/cli/bench/data.js";
import { grpo, policyLoss, policyLossSync, rlsd, rlsdCredit } from "../lib/index.js";
import { native } from "../lib/native/load.js";
import type { BenchOptions, BenchTable } from "./table.js";

const TOKENS = 32;

/** Calls in one sample: a timer read costs as much as a small call. */
const CALLS = 200;

function repeat(call: () => unknown): () => void {
  return () => {
    for (let i = 0; i < CALLS; i++) call();
  };
}

function calls(quick: boolean): Bench {
  const { teacher, ...plain } = logProbBatch(TOKENS, 8);
  const batch = { ...plain, teacher };
  const call = { out: logProbOut(TOKENS) };
  const bare = grpo();
  const credited = rlsd();
  const credit = {
    logProbs: plain.student.logProbs,
    teacherLogProbs: teacher.logProbs,
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
  return bench;
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const bench = calls(quick);
  await bench.run();
  const microseconds = (milliseconds: number | undefined) => ((milliseconds ?? Number.NaN) * 1000) / CALLS;
  const rows = bench.tasks.map((task) => {
    const latency = "latency" in task.result ? task.result.latency : undefined;
    return [task.name, microseconds(latency?.min), microseconds(latency?.p50), microseconds(latency?.p75)];
  });
  yield* [
    {
      title: `One call on ${TOKENS} tokens in 4 sequences, microseconds`,
      columns: ["call", "least", "median", "p75"],
      rows,
      notes: ["Targets: under 3 us into the caller's arrays, under 5 us with results allocated."],
    },
  ];
}
