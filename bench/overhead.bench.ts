/** What one call costs beyond its arithmetic: a 32-token batch against an empty native call. */
import { Bench } from "tinybench";
import { grpo, type PolicyBatch, type PolicyOut, policyLoss, policyLossSync, rlsd, rlsdCredit } from "../lib/index.js";
import { native } from "../lib/native/load.js";
import type { BenchOptions, BenchTable } from "./table.js";

const TOKENS = 32;

function makeBatch(): Required<Pick<PolicyBatch, "student" | "teacher" | "cuSeqlens" | "advantages" | "oldLogProbs">> {
  const values = (seed: number) => Float32Array.from({ length: TOKENS }, (_, i) => -((i * 37 + seed * 11) % 29) / 10);
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

export async function run({ quick }: BenchOptions): Promise<BenchTable[]> {
  const { teacher, ...plain } = makeBatch();
  const batch = { ...plain, teacher };
  const call = { out: makeOut() };
  const bare = grpo();
  const credited = rlsd();
  const credit = {
    logProbs: batch.oldLogProbs,
    teacherLogProbs: batch.oldLogProbs,
    advantages: batch.advantages,
    cuSeqlens: batch.cuSeqlens,
  };
  const bench = new Bench({ time: quick ? 50 : 1000, warmupTime: quick ? 10 : 200 });
  bench
    .add("empty native call", () => native.noop())
    .add("grpo(), into out", () => policyLossSync(plain, bare, call))
    .add("rlsd(), into out", () => policyLossSync(batch, credited, call))
    .add("rlsd(), results allocated", () => policyLossSync(batch, credited))
    .add("rlsdCredit()", () => rlsdCredit(credit))
    .add("rlsd(), queued and awaited", () => policyLoss(batch, credited), { async: true });
  await bench.run();
  const rows = bench.tasks.map((task) => {
    const latency = "latency" in task.result ? task.result.latency : undefined;
    return [task.name, (latency?.p50 ?? Number.NaN) * 1000, (latency?.p75 ?? Number.NaN) * 1000];
  });
  return [
    {
      title: `One call on ${TOKENS} tokens in 4 sequences`,
      columns: ["call", "median us", "p75 us"],
      rows,
      notes: ["Targets: under 3 us into the caller's arrays, under 5 us with results allocated."],
    },
  ];
}
