/** What it brings to lay weights out for drawing, and not anew at every step. */
import { backendInfo, type CreateOptions, createPolicy, type EnginePolicy } from "../lib/index.js";
import { drawing, INITIAL, REAL, type Workload } from "./support/engine-workload.js";
import { inTurn } from "./support/in-turn.js";
import type { BenchOptions, BenchTable } from "./table.js";

type MatmulType = NonNullable<CreateOptions["matmulType"]>;

/** Matrices that outweigh what a product takes beside them. */
const SMALL: Workload = {
  ...REAL,
  name: "7 million parameters",
  model: { ...REAL.model, numLayers: 1, vocabSize: 4000 },
  promptTokens: 16,
  completionTokens: 16,
};

/** A policy that lays its weights out, and one whose memory is too short for that. */
async function both(w: Workload, matmulType: MatmulType): Promise<[EnginePolicy, EnginePolicy]> {
  const packed = await createPolicy(w.model, { ...INITIAL, matmulType });
  // A quarter of what is left has to be enough: this is less than four times the matrices in 16 bits, of which the embedding is none.
  const memoryLimit = (await packed.memoryBytes()) + 2.5 * 2 * packed.parameterCount;
  return [packed, await createPolicy(w.model, { ...INITIAL, matmulType, memoryLimit })];
}

async function compare(w: Workload, type: MatmulType, counts: readonly number[], rounds: number) {
  const policies = await both(w, type);
  const prompt = Int32Array.from({ length: w.promptTokens }, (_, j) => (3 * j) % w.model.vocabSize);
  const rows: (string | number)[][] = [];
  try {
    for (const count of counts) {
      const times = await inTurn(
        policies.map((policy) => drawing(policy, [prompt], count, w.completionTokens)),
        rounds,
      );
      const [packed, asRows] = times.map((seconds) => (count * (w.completionTokens - 1)) / seconds);
      rows.push([type, count, asRows!, packed!, packed! / asRows!]);
    }
  } finally {
    await Promise.all(policies.map((policy) => policy.dispose()));
  }
  return rows;
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const workload = quick ? SMALL : { ...REAL, promptTokens: 64, completionTokens: 32 };
  const types: MatmulType[] = backendInfo().cpu.matmulTypes?.includes("bf16") ? ["f32", "bf16"] : ["f32"];
  const rows: (string | number)[][] = [];
  for (const type of types) rows.push(...(await compare(workload, type, [1, 8, 16, 64], quick ? 3 : 9)));
  yield {
    title: `Drawing with weights as rows, and laid out for products: ${workload.name}`,
    columns: ["factors", "sequences", "as rows, tokens / s", "laid out, tokens / s", "times as fast"],
    rows,
    notes: [
      "from the first token on, the prompt not included; weights held as float32; the same bits; the two in turn",
      "up to 8 sequences with float32 factors both read rows",
    ],
  };
}
