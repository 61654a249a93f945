/** What it brings to round the factors of the engine's products to bfloat16, where the processor multiplies those faster. */
import { backendInfo, createPolicy, grpo } from "../lib/index.js";
import { drawn, EXAMPLE, INITIAL, REAL } from "./support/engine-workload.js";
import { inTurn, timed } from "./support/in-turn.js";
import type { BenchOptions, BenchTable } from "./table.js";

const COLUMNS = ["factors", "drawn tokens / s", "scored tokens / s", "trained tokens / s", "log P, mean difference"];

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const workload = quick ? EXAMPLE : REAL;
  const title = `Products of factors in float32 and in bfloat16: ${workload.name}`;
  if (!backendInfo().cpu.matmulTypes?.includes("bf16")) {
    yield { title, columns: COLUMNS, rows: [], notes: ["not run: this processor does not multiply bfloat16 faster"] };
    return;
  }
  await using exact = await createPolicy(workload.model, INITIAL);
  await using rounded = await createPolicy(workload.model, { ...INITIAL, matmulType: "bf16" });
  const policies = [exact, rounded];
  const { prompts, sampling, sequences, advantages, total } = await drawn(exact, workload);
  const tokens = sequences.length * workload.completionTokens;
  const rounds = quick ? 3 : 9;
  const rates = async (count: number, call: (policy: (typeof policies)[number]) => Promise<unknown>) =>
    (
      await inTurn(
        policies.map((policy) => timed(() => call(policy))),
        rounds,
      )
    ).map((seconds) => count / seconds);
  const draws = await rates(tokens, (policy) => policy.generate(prompts, sampling));
  const scores = await rates(total, (policy) => policy.score(sequences));
  const trains = await rates(total, (policy) => policy.accumulate({ sequences, advantages }, grpo()));
  const [a, b] = (await Promise.all(policies.map((policy) => policy.score(sequences)))).map((rows) =>
    rows.flatMap((row) => [...row]),
  );
  const difference = a!.reduce((sum, logProb, i) => sum + Math.abs(logProb - b![i]!), 0) / a!.length;
  const times = ([one, other]: readonly number[]) => `${other!.toFixed(0)} (${(other! / one!).toFixed(2)} times)`;
  yield {
    title,
    columns: COLUMNS,
    rows: [
      ["f32", draws[0]!, scores[0]!, trains[0]!, 0],
      ["bf16", times(draws), times(scores), times(trains), difference],
    ],
    notes: [`matmulType; the two in turn, medians of ${rounds}; weights held as float32, sums in float32`],
  };
}
