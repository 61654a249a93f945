/** The loss over logits against what memory and our own exponential can do, PyTorch eager and tfjs. */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { bytesPerElement, type LogitsShape, logitsBatch, makeLogits } from "../lib/cli/bench/data.js";
import { type DType, policyLossSync, rlsd, tokenLogProbsSync } from "../lib/index.js";
import { copyRate } from "./support/copy-rate.js";
import { tfjsLossMs } from "./support/tfjs-loss.js";
import type { BenchOptions, BenchTable } from "./table.js";

const bytesOf = ({ tokens, vocab, dtype }: LogitsShape): number => tokens * vocab * bytesPerElement(dtype);

/** Best time of a call in milliseconds. */
function best(rounds: number, call: () => unknown): number {
  let shortest = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    call();
    shortest = Math.min(shortest, performance.now() - begin);
  }
  return shortest;
}

/** Exponentials a second of one core over a row that stays in cache: a score is one for each column, and two sums. */
function exponentialRate(vocab: number, dtype: DType, rounds: number): number {
  const logits = makeLogits({ tokens: 1, vocab, dtype }, 3);
  const ids = Int32Array.of(0);
  return vocab / (best(rounds, () => tokenLogProbsSync({ logits }, ids, { threads: 1 })) / 1000);
}

/** [version, milliseconds] of PyTorch eager, or why there are none. */
function eager({ tokens, vocab, dtype }: LogitsShape, threads: number, rounds: number): [string, number] | string {
  const python = process.env.RLSD_BENCH_PYTHON ?? "python3";
  const script = fileURLToPath(new URL("support/eager.py", import.meta.url));
  const type = { f32: "float32", bf16: "bfloat16", f16: "float16" }[dtype];
  try {
    const args = [script, tokens, vocab, type, threads, rounds].map(String);
    const [version, time] = execFileSync(python, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).split(
      " ",
    );
    return [version!, Number(time)];
  } catch {
    return `PyTorch: not run, ${python} cannot import torch (RLSD_BENCH_PYTHON names another).`;
  }
}

async function fusedTable(shapes: readonly LogitsShape[], threads: number, quick: boolean): Promise<BenchTable> {
  const rounds = quick ? 3 : 40;
  const rows: (string | number)[][] = [];
  const notes = new Set<string>();
  for (const shape of shapes) {
    const bytes = bytesOf(shape);
    const rate = await copyRate(bytes, threads, rounds);
    const batch = logitsBatch(shape);
    const ours = best(rounds, () => policyLossSync(batch, rlsd(), { inPlace: true, threads }));
    const again = await copyRate(bytes, threads, rounds);
    const copy = Math.max(rate, again);
    const exponentials = exponentialRate(shape.vocab, shape.dtype, 10 * rounds) * threads;
    const bytesFloor = (3 * bytes * 1000) / copy;
    const expFloor = (2 * shape.tokens * shape.vocab * 1000) / exponentials;
    const floor = Math.max(bytesFloor, expFloor);
    const rival = eager(shape, threads, quick ? 2 : 8);
    if (typeof rival === "string") notes.add(rival);
    else notes.add(`PyTorch ${rival[0]}, ${threads} threads, log_softmax in float32.`);
    const peer = typeof rival === "string" ? "-" : rival[1];
    rows.push([
      shape.dtype,
      shape.tokens,
      shape.vocab,
      threads,
      ours,
      (3 * bytes) / ours / 1e6,
      copy / 1e9,
      bytesFloor,
      expFloor,
      floor / ours,
      peer,
      typeof peer === "string" ? "-" : peer / ours,
    ]);
  }
  return {
    title: "rlsd() over logits, teacher logits beside them, gradient in place (best of rounds)",
    columns: [
      "dtype",
      "N",
      "V",
      "threads",
      "ms",
      "GB/s",
      "copy GB/s",
      "bytes floor ms",
      "exp floor ms",
      "of floor",
      "PyTorch ms",
      "x",
    ],
    rows,
    notes: [
      "Bytes floor: student read, teacher read, gradient written, at the rate of a plain copy in the same run.",
      "Exp floor: two exponentials an element at the rate at which a row in cache is scored.",
      ...notes,
    ],
  };
}

function scoreTable(shapes: readonly LogitsShape[], threads: number, quick: boolean): BenchTable {
  const rows = shapes.map((shape) => {
    const logits = makeLogits(shape, 4);
    const ids = new Int32Array(shape.tokens);
    const ms = best(quick ? 3 : 40, () => tokenLogProbsSync({ logits }, ids, { threads, entropy: true }));
    return [shape.dtype, shape.tokens, shape.vocab, threads, ms, bytesOf(shape) / ms / 1e6];
  });
  return {
    title: "tokenLogProbs with entropy",
    columns: ["dtype", "N", "V", "threads", "ms", "GB/s"],
    rows,
    notes: ["One read of the logits and no write: its rate may exceed a copy's."],
  };
}

/** The same loss written in TensorFlow.js, on a shape that it can do in seconds. */
function tfjsTable(quick: boolean): BenchTable {
  const shape: LogitsShape = { tokens: quick ? 4 : 16, vocab: quick ? 5000 : 32_000, dtype: "f32" };
  const batch = logitsBatch(shape);
  const ours = best(quick ? 2 : 10, () => policyLossSync(batch, rlsd(), { inPlace: true }));
  const theirs = tfjsLossMs(shape.tokens, shape.vocab, quick ? 1 : 2);
  return {
    title: "rlsd() over logits against TensorFlow.js (CPU backend, its own gradient)",
    columns: ["dtype", "N", "V", "ms", "tfjs ms", "x"],
    rows: [[shape.dtype, shape.tokens, shape.vocab, ours, theirs, theirs / ours]],
  };
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const tokens = quick ? 16 : 128;
  const vocab = quick ? 20_000 : 151_936;
  const cores = availableParallelism();
  const dtypes: DType[] = quick ? ["f32"] : ["f32", "bf16", "f16"];
  const shapes = dtypes.map((dtype) => ({ tokens, vocab, dtype }));
  yield await fusedTable(shapes, cores, quick);
  if (cores > 1) yield await fusedTable(shapes.slice(0, 2), 1, quick);
  yield scoreTable(shapes, cores, quick);
  yield tfjsTable(quick);
}
