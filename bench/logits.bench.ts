/** The loss over logits against what memory can do, what our own scores take without memory, PyTorch eager and tfjs. */
import { availableParallelism } from "node:os";
import { Copier } from "../lib/cli/bench/copy-rate.js";
import { bytesPerElement, type LogitsShape, logitsBatch, logitsFiller, makeLogits } from "../lib/cli/bench/data.js";
import { repeated } from "../lib/cli/bench/timing.js";
import { type DType, policyLossSync, rlsd, tokenLogProbsSync } from "../lib/index.js";
import { type Contestant, inTurn, timed } from "./support/in-turn.js";
import { tfjsLossMs } from "./support/tfjs-loss.js";
import { findPython, Rival } from "./support/torch.js";
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

interface Timing {
  readonly ms: number;
  readonly copyMs: number;
  readonly cachedMs: number;
  /** PyTorch, memory kept and memory returned; none without PyTorch. */
  readonly rivals: readonly number[];
}

/**
 * One shape, all contestants in turn. Each of our rounds begins with logits: the gradient of the round before lies where they
 * were, and a copy off the clock writes to memory what putting them back left in the caches.
 */
async function timing(shape: LogitsShape, threads: number, rounds: number, rivals: readonly Rival[]): Promise<Timing> {
  const { tokens, vocab, dtype } = shape;
  const batch = logitsBatch(shape);
  const refill = logitsFiller(shape, 1);
  const row = makeLogits({ tokens: 1, vocab, dtype }, 3);
  const scoreRow = () => tokenLogProbsSync({ logits: row }, Int32Array.of(0), { threads: 1 });
  const type = { f32: "float32", bf16: "bfloat16", f16: "float16" }[dtype];
  for (const rival of rivals) await rival.ask({ op: "load", rows: tokens, vocabulary: vocab, dtype: type, threads });
  const copier = await Copier.start(bytesOf(shape), threads);
  try {
    const ours: Contestant = async () => {
      refill(batch.student.logits);
      copier.copy();
      return timed(async () => policyLossSync(batch, rlsd(), { inPlace: true, threads }))();
    };
    const copy: Contestant = async () => copier.copy() / 1000;
    const cached: Contestant = async () => {
      scoreRow(); // brings the row into the cache
      return (await repeated(20, scoreRow)()) / 1000;
    };
    const asks = rivals.map((rival) => async () => (await rival.ask<{ seconds: number }>({ op: "step" })).seconds);
    const [one, two, three, ...others] = await inTurn([ours, copy, cached, ...asks], rounds);
    return { ms: 1000 * one!, copyMs: 1000 * two!, cachedMs: 1000 * three!, rivals: others.map((time) => 1000 * time) };
  } finally {
    await copier.stop();
  }
}

async function fusedTable(shapes: readonly LogitsShape[], threads: number, quick: boolean): Promise<BenchTable> {
  const rounds = quick ? 3 : 20;
  const python = findPython();
  using kept = python === undefined ? undefined : new Rival(python, "eager.py", "kept");
  using returned = python === undefined ? undefined : new Rival(python, "eager.py", "returned");
  const rivals = [kept, returned].filter((rival) => rival !== undefined);
  const rows: (string | number)[][] = [];
  for (const shape of shapes) {
    const { tokens, vocab, dtype } = shape;
    const { ms, copyMs, cachedMs, rivals: others } = await timing(shape, threads, rounds, rivals);
    // A copy reads and writes a tensor, the loss reads two and writes one.
    const bytesMs = 1.5 * copyMs;
    const scoresMs = (2 * tokens * cachedMs) / threads;
    const peers = others.flatMap((time) => [time, time / ms]);
    const gbps = (3 * bytesOf(shape)) / ms / 1e6;
    const least = Math.max(bytesMs, scoresMs);
    rows.push([dtype, tokens, vocab, threads, ms, gbps, bytesMs, scoresMs, least / ms, ...peers]);
  }
  const peers = rivals.length === 0 ? [] : ["PyTorch ms", "x", "as it comes ms", "x"];
  return {
    title: "rlsd() over logits, teacher logits beside them, gradient in place",
    columns: ["dtype", "N", "V", "threads", "ms", "GB/s", "bytes ms", "scores ms", "share", ...peers],
    rows,
    notes: [
      `medians of ${rounds} rounds, in turn`,
      "bytes: student read, teacher read, gradient written, at the rate of a plain copy on as many threads",
      "scores: two exponentials an element at the rate at which this package scores a row in cache; share: of the larger of the two",
      rivals.length === 0
        ? "not run: PyTorch, as no Python with torch was found (RLSD_BENCH_PYTHON names one)"
        : "PyTorch: log_softmax in float32, malloc told to keep memory; as it comes it returns large pieces, and pays for their pages again",
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
