/** What the policy engine does in a second: sampling, scoring and training, at the example's size and at a real one's. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, grpo, loadPolicy } from "../lib/index.js";
import { rivalTable } from "./support/engine-rival.js";
import { drawing, drawn, EXAMPLE, INITIAL, REAL, type Workload } from "./support/engine-workload.js";
import { inTurn, timed } from "./support/in-turn.js";
import { findPython } from "./support/torch.js";
import type { BenchOptions, BenchTable } from "./table.js";

/** Ranks of adapters on all seven matrices; 0: the weights themselves are trained. */
const RANKS = [0, 8, 64];

async function measure(w: Workload, rounds: number): Promise<(string | number)[]> {
  await using policy = await createPolicy(w.model, INITIAL);
  const { prompts, sampling, sequences, advantages, total } = await drawn(policy, w);
  const seconds = async (call: () => Promise<unknown>): Promise<number> => (await inTurn([timed(call)], rounds))[0]!;
  const generate = await seconds(() => policy.generate(prompts, sampling));
  const score = await seconds(() => policy.score(sequences));
  const accumulate = await seconds(() => policy.accumulate({ sequences, advantages }, grpo()));
  const step = await seconds(() => policy.step({ learningRate: 0 }));
  const drawnTokens = sequences.length * w.completionTokens;
  return [w.name, drawnTokens / generate, total / score, total / accumulate, 1000 * step];
}

/** Trains a new copy of the model, or adapters of some rank on it. */
async function trained(w: Workload, rank: number): Promise<EnginePolicy> {
  const policy = await createPolicy(w.model, INITIAL);
  if (rank === 0) return policy;
  try {
    return await policy.withLora({ rank });
  } finally {
    await policy.dispose();
  }
}

/** The same weights held as float32 and as bfloat16. */
async function heldTypes(w: Workload, rounds: number): Promise<(string | number)[][]> {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-bench-"));
  await using made = await createPolicy(w.model, INITIAL);
  await made.save(join(folder, "bf16"), { dtype: "bf16" });
  const narrow = await loadPolicy(join(folder, "bf16"));
  await narrow.save(join(folder, "f32"));
  const policies = [await loadPolicy(join(folder, "f32")), narrow];
  try {
    const { prompts, sampling, sequences, total } = await drawn(narrow, w);
    const held = await Promise.all(policies.map((policy) => policy.heldType()));
    const drawing = await inTurn(
      policies.map((policy) => timed(() => policy.generate(prompts, sampling))),
      rounds,
    );
    const scoring = await inTurn(
      policies.map((policy) => timed(() => policy.score(sequences))),
      rounds,
    );
    const tokens = sequences.length * w.completionTokens;
    return held.map((type, i) => {
      const weights = ((type === "f32" ? 4 : 2) * made.parameterCount) / 2 ** 20;
      const [draw, score] = [drawing[i]!, scoring[i]!];
      return [type, weights, tokens / draw, drawing[0]! / draw, total / score, scoring[0]! / score];
    });
  } finally {
    await Promise.all(policies.map((policy) => policy.dispose()));
    rmSync(folder, { recursive: true, force: true });
  }
}

async function adapters(w: Workload, rounds: number): Promise<(string | number)[][]> {
  const policies = await Promise.all(RANKS.map((rank) => trained(w, rank)));
  try {
    const { sequences, advantages, total } = await drawn(policies[0]!, w);
    const both = async (policy: EnginePolicy) => {
      await policy.accumulate({ sequences, advantages }, grpo());
      await policy.step({ learningRate: 0 });
    };
    const times = await inTurn(
      policies.map((policy) => timed(() => both(policy))),
      rounds,
    );
    const held = await Promise.all(policies.map((policy) => policy.memoryBytes()));
    return policies.map((policy, i) => {
      const time = times[i]!;
      const name = RANKS[i] === 0 ? "all weights" : `adapters of rank ${RANKS[i]}`;
      return [name, policy.trainedParameterCount / 1e6, total / time, times[0]! / time, held[i]! / 2 ** 20];
    });
  } finally {
    await Promise.all(policies.map((policy) => policy.dispose()));
  }
}

/** Training the same completions side by side with those of their prompt, and apart from them, where each computes it again. */
async function sharing(w: Workload, rounds: number): Promise<(string | number)[][]> {
  const policies = await Promise.all([0, 1].map(() => createPolicy(w.model, INITIAL)));
  try {
    const { sequences, advantages, total } = await drawn(policies[0]!, w);
    const apart = sequences.map((_, i) => (i % w.prompts) * w.completions + Math.floor(i / w.prompts));
    const order = apart.map((i) => sequences[i]!);
    const batches = [
      { sequences, advantages },
      { sequences: order, advantages: Float32Array.from(apart, (i) => advantages[i]!) },
    ];
    const train = (policy: EnginePolicy, i: number) => timed(() => policy.accumulate(batches[i]!, grpo()));
    const times = await inTurn(policies.map(train), rounds);
    const held = await Promise.all(policies.map((policy) => policy.memoryBytes()));
    return ["side by side", "apart"].map((name, i) => [
      name,
      total / times[i]!,
      times[1]! / times[i]!,
      held[i]! / 2 ** 20,
    ]);
  } finally {
    await Promise.all(policies.map((policy) => policy.dispose()));
  }
}

/** Drawing completions that share a prompt, and as many that have each one of their own. */
async function sharedPrompts(w: Workload, lengths: readonly number[], rounds: number): Promise<(string | number)[][]> {
  await using policy = await createPolicy(w.model, INITIAL);
  const sequences = w.prompts * w.completions;
  const rows: (string | number)[][] = [];
  for (const length of lengths) {
    const prompts = Array.from({ length: sequences }, (_, i) =>
      Int32Array.from({ length }, (_v, j) => (7 * i + 3 * j) % w.model.vocabSize),
    );
    const [together, apart] = await inTurn(
      [
        drawing(policy, prompts.slice(0, w.prompts), w.completions, w.completionTokens),
        drawing(policy, prompts, 1, w.completionTokens),
      ],
      rounds,
    );
    const tokens = sequences * (w.completionTokens - 1);
    rows.push([length, tokens / together!, tokens / apart!, apart! / together!]);
  }
  return rows;
}

/** Training that keeps activations, and that computes layers again. */
async function recomputing(w: Workload, rounds: number): Promise<(string | number)[][]> {
  const policies = await Promise.all(
    [false, true].map((recompute) => createPolicy(w.model, { ...INITIAL, recompute })),
  );
  try {
    const { sequences, advantages, total } = await drawn(policies[0]!, w);
    const train = (policy: EnginePolicy) => timed(() => policy.accumulate({ sequences, advantages }, grpo()));
    const times = await inTurn(policies.map(train), rounds);
    return policies.map((policy, i) => {
      const bytes = policy.activationBytes(1024, true) / 1024;
      return [
        i === 0 ? "kept" : "computed again",
        total / times[i]!,
        times[i]! / times[0]!,
        bytes / 1024,
        policy.batchTokens,
      ];
    });
  } finally {
    await Promise.all(policies.map((policy) => policy.dispose()));
  }
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const rows = [await measure(EXAMPLE, quick ? 3 : 40)];
  if (!quick) rows.push(await measure(REAL, 3));
  yield {
    title: "The policy engine",
    columns: ["model", "drawn tokens / s", "scored tokens / s", "trained tokens / s", "AdamW step (ms)"],
    rows,
    notes: [
      "drawn: 64 and 16 sequences at once, prompts included in the time; scored and trained: prompts and completions",
      "float32 throughout; random weights, so that nothing ends early",
    ],
  };
  const python = findPython("torch, transformers");
  yield await rivalTable(EXAMPLE, quick ? 3 : 20, python);
  if (!quick) yield await rivalTable(REAL, 5, python);
  const workload = quick ? EXAMPLE : REAL;
  yield {
    title: `Training the completions of a prompt: ${workload.name}`,
    columns: ["lying", "tokens / s", "times as fast", "memory (MiB)"],
    rows: await sharing(workload, quick ? 3 : 9),
    notes: ["side by side they compute their prompt once, forward and backward; the two in turn"],
  };
  yield {
    title: `Drawing ${workload.prompts} prompts with ${workload.completions} completions each, and as many prompts: ${workload.name}`,
    columns: ["prompt tokens", "shared, tokens / s", "apart, tokens / s", "times as fast"],
    rows: await sharedPrompts(workload, quick ? [64] : [64, 512, 1920], 3),
    notes: ["from the first token on, prompts not included; the two in turn"],
  };
  yield {
    title: `Activations kept, and layers computed again: ${workload.name}`,
    columns: ["activations", "tokens / s", "times as long", "KiB a token", "tokens at once"],
    rows: await recomputing(workload, quick ? 3 : 9),
    notes: ["the same bits; the two in turn; tokens at once: as many as train in 2 GiB of activations, at most 8192"],
  };
  yield {
    title: `The same weights, held as float32 and as bfloat16: ${workload.name}`,
    columns: ["held as", "weights (MiB)", "drawn tokens / s", "times as fast", "scored tokens / s", "times as fast"],
    rows: await heldTypes(workload, quick ? 3 : 9),
    notes: ["the same bits; the two in turn"],
  };
  yield {
    title: `Training all weights, and adapters alone: ${workload.name}`,
    columns: ["trained", "million parameters", "tokens / s", "times as fast", "memory (MiB)"],
    rows: await adapters(workload, quick ? 3 : 9),
    notes: [
      "one pass and one step on the same completions, the three in turn",
      "memory: all that the policy holds afterwards, weights, gradient, moments, activations and scratch",
    ],
  };
}
