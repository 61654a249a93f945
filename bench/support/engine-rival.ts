/** The engine beside PyTorch and transformers: the same weights, prompts, completions and loss, in turn. */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, grpo } from "../../lib/index.js";
import type { BenchTable } from "../table.js";
import { drawn, INITIAL, type Workload } from "./engine-workload.js";
import { inTurn, timed } from "./in-turn.js";
import { Rival } from "./torch.js";

/** Log-probs further apart than this would mean that the two compute different things. */
const AGREEMENT = 1e-3;

interface Timed {
  readonly seconds: number;
}

const furthest = (a: Float32Array, b: readonly number[]): number =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? Number.NaN))), 0);

/** Seconds of each kind of work, ours and the rival's. */
async function compare(policy: EnginePolicy, rival: Rival, w: Workload, rounds: number) {
  const { prompts, sampling, sequences, advantages, total } = await drawn(policy, w);
  const batch = {
    prompts: sequences.map(({ prompt }) => [...prompt]),
    completions: sequences.map((s) => [...s.completion]),
  };
  const own = Float32Array.from((await policy.score(sequences)).flatMap((row) => [...row]));
  const { logProbs } = await rival.ask<{ logProbs: number[] }>({ op: "score", ...batch });
  const apart = furthest(own, logProbs);
  if (!(apart <= AGREEMENT)) throw new Error(`The rival's log-probs are not ours: ${apart} apart.`);
  const asks = (request: object) => async () => (await rival.ask<Timed>(request)).seconds;
  const pair = (call: () => Promise<unknown>, request: object) => inTurn([timed(call), asks(request)], rounds);
  const draw = await pair(() => policy.generate(prompts, sampling), {
    op: "draw",
    prompts: prompts.map((prompt) => [...prompt]),
    count: sampling.count,
    tokens: sampling.maxTokens,
  });
  const score = await pair(() => policy.score(sequences), { op: "score", ...batch });
  const train = await pair(() => policy.accumulate({ sequences, advantages }, grpo()), {
    op: "train",
    ...batch,
    advantages: [...advantages],
  });
  const step = await pair(() => policy.step({ learningRate: 0 }), { op: "step" });
  const rows: (string | number)[][] = [
    ["drawn tokens / s", ...rates(sequences.length * w.completionTokens, draw)],
    ["scored tokens / s", ...rates(total, score)],
    ["trained tokens / s", ...rates(total, train)],
    ["AdamW steps / s", ...rates(1, step)],
  ];
  return { rows, apart };
}

/** Ours, the rival's, and how many times as fast ours is. */
function rates(count: number, seconds: readonly number[]): number[] {
  const [own = Number.NaN, others = Number.NaN] = seconds;
  return [count / own, count / others, others / own];
}

/** Without a Python that has torch and transformers there is no rival, and the table says so. */
export async function rivalTable(w: Workload, rounds: number, python: string | undefined): Promise<BenchTable> {
  const title = `Beside PyTorch and transformers: ${w.name}`;
  const columns = ["what", "rlsd", "transformers", "times as fast"];
  if (python === undefined) {
    const note = "not run: no Python with torch and transformers was found (RLSD_BENCH_PYTHON names one)";
    return { title, columns, rows: [], notes: [note] };
  }
  const folder = mkdtempSync(join(tmpdir(), "rlsd-bench-"));
  try {
    await using policy = await createPolicy(w.model, INITIAL);
    await policy.save(join(folder, "model"));
    using rival = new Rival(python, "engine_torch.py");
    const threads = availableParallelism();
    const { version } = await rival.ask<{ version: string }>({ op: "load", directory: join(folder, "model"), threads });
    const { rows, apart } = await compare(policy, rival, w, rounds);
    const { prompts, completions, promptTokens, completionTokens } = w;
    const notes = [
      `${version}, float32, ${threads} threads each, the two in turn, medians of ${rounds}; its malloc keeps memory`,
      `${prompts} prompts of ${promptTokens} tokens, ${completions} completions each of ${completionTokens}; no padding`,
      `log-probs of the two are at most ${apart.toExponential(1)} apart`,
    ];
    return { title, columns, rows, notes };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
