/**
 * The RLSD loss over an LM head, forward and backward, against PyTorch with whole logits and with chunks of rows. Runs are
 * interleaved; memory is the peak above inputs and gradients, both of which exist before the clock starts.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { headBatch, touched } from "../lib/cli/bench/data.js";
import { distillLossSync, policyLossSync, rlsd } from "../lib/index.js";
import { findPython, Rival } from "./support/torch.js";
import type { BenchOptions, BenchTable } from "./table.js";

interface Shape {
  readonly tokens: number;
  readonly vocab: number;
  readonly width: number;
}

interface Run {
  readonly seconds: number;
  readonly bytes: number;
}

function resident(field: "VmRSS" | "VmHWM"): number {
  const line = readFileSync("/proc/self/status", "utf8").match(new RegExp(`${field}:\\s+(\\d+)`));
  return Number(line?.[1] ?? Number.NaN) * 1024;
}

function measure(call: () => void): Run {
  globalThis.gc?.();
  writeFileSync("/proc/self/clear_refs", "5"); // the peak starts from here
  const before = resident("VmRSS");
  const start = performance.now();
  call();
  return { seconds: (performance.now() - start) / 1000, bytes: resident("VmHWM") - before };
}

/** Of several runs the fastest, and the most memory that any took. */
const best = (runs: readonly Run[]): Run => ({
  seconds: Math.min(...runs.map((run) => run.seconds)),
  bytes: Math.max(...runs.map((run) => run.bytes)),
});

function ownCalls(shape: Shape): Record<string, () => void> {
  const batch = headBatch({ ...shape, hidden: shape.width, dtype: "f32" });
  const { student, teacher, cuSeqlens } = batch;
  const out = { hidden: touched(student.hidden.shape, "f32"), head: touched(student.head.shape, "f32") };
  return {
    "rlsd, policyLoss": () => policyLossSync(batch, rlsd(), { out }),
    "rlsd, policyLoss, frozen head": () =>
      policyLossSync(batch, rlsd(), { out: { hidden: out.hidden }, frozenHead: true }),
    "rlsd, distillLoss (jsd)": () => distillLossSync({ student, teacher, cuSeqlens }, { divergence: "jsd" }, { out }),
  };
}

/** Operations of each kind: 2 V H a token for each product. */
const PRODUCTS: Readonly<Record<string, number>> = { "rlsd, policyLoss, frozen head": 3 };

async function table(shape: Shape, repeats: number, python: string | undefined): Promise<BenchTable> {
  const { tokens, vocab, width } = shape;
  const runs = new Map<string, Run[]>();
  const add = (name: string, run: Run) => runs.set(name, [...(runs.get(name) ?? []), run]);
  const own = ownCalls(shape);
  using kept = python === undefined ? undefined : new Rival(python, "head_torch.py", "kept");
  using returned = python === undefined ? undefined : new Rival(python, "head_torch.py", "returned");
  const rivals = new Map([
    ["PyTorch", kept],
    ["PyTorch as it comes", returned],
  ]);
  let version: string | undefined;
  for (const rival of rivals.values()) {
    const load = { op: "load", threads: availableParallelism(), ...shape };
    version = (await rival?.ask<{ version: string }>(load))?.version;
  }
  const rivalRows = { "whole logits": tokens, "128 rows": 128, "32 rows": 32 };
  for (let i = -1; i < repeats; i++) {
    for (const [name, call] of Object.entries(own)) {
      const run = measure(call);
      if (i >= 0) add(name, run); // the first warms caches and threads
    }
    for (const [name, rows] of Object.entries(rivalRows)) {
      for (const [who, rival] of rivals) {
        const run = await rival?.ask<Run>({ op: "step", rows });
        // Of memory that malloc keeps between runs there is no peak above what was there before.
        if (run !== undefined && i >= 0) add(`${who}, ${name}`, rival === kept ? { ...run, bytes: Number.NaN } : run);
      }
    }
  }
  return {
    title: `LM head, forward and backward with a teacher: ${tokens} rows, V = ${vocab}, H = ${width}, f32`,
    columns: ["what", "seconds", "GFLOP/s", "peak MiB above inputs and gradients"],
    rows: [...runs].map(([name, all]) => {
      const { seconds, bytes } = best(all);
      const operations = (PRODUCTS[name] ?? 4) * 2 * tokens * vocab * width;
      return [name, seconds, operations / seconds / 1e9, Number.isNaN(bytes) ? "-" : bytes / 2 ** 20];
    }),
    notes: [
      `${availableParallelism()} threads; fastest of ${repeats} interleaved runs, most memory of any`,
      version === undefined
        ? "not run: PyTorch, as no Python with torch was found (RLSD_BENCH_PYTHON names one)"
        : `PyTorch ${version}, malloc told to keep memory; as it comes it returns large pieces, and pays for their pages again`,
    ],
  };
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const python = findPython();
  const shapes = quick
    ? [{ tokens: 64, vocab: 8192, width: 64 }]
    : [896, 2048].map((width) => ({ tokens: 256, vocab: 151_936, width }));
  for (const shape of shapes) yield await table(shape, quick ? 1 : 3, python);
}
