/** The matrix product against the machine's peaks of multiply-adds and of reading memory, measured in the same seconds. */
import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { compiler, cpuLibrary, testProgram } from "../test/support/cpu-library.js";
import type { BenchOptions, BenchTable } from "./table.js";

const TITLE = "Matrix product, float32, GFLOP/s";
const FEW_TITLE = "Products of few rows, weights read from memory, GB/s";

type Shape = readonly [
  what: string,
  m: number,
  n: number,
  k: number,
  transposeA: 0 | 1,
  transposeB: 0 | 1,
  beta: 0 | 1,
];

const SHAPES: readonly Shape[] = [
  ["square", 1024, 1024, 1024, 0, 1, 0],
  ["square", 2048, 2048, 2048, 0, 1, 0],
  ["layer, forward", 4096, 1408, 512, 0, 1, 0],
  ["layer, to its input", 4096, 512, 1408, 0, 0, 0],
  ["layer, to its weight", 1408, 512, 4096, 1, 0, 1],
  ["decoding 64", 64, 2048, 2048, 0, 1, 0],
  ["decoding 64, small", 64, 512, 512, 0, 1, 0],
  ["head, logits", 96, 151_936, 896, 0, 1, 0],
  ["head, to hidden states", 96, 896, 151_936, 0, 0, 0],
  ["head, to its weight", 151_936, 896, 96, 1, 0, 1],
];

/** Sequences that draw a token; the weights are larger than the caches, as a model's are when its layers have had their turn. */
const FEW = ["f32", "bf16"].flatMap((dtype) => [1, 2, 4, 8].map((rows) => [dtype, rows] as const));
const FEW_COLUMNS = 32_768;
const FEW_DEPTH = 2048;

interface Figures {
  /** GFLOP/s. */
  readonly peak: number;
  /** GB/s. */
  readonly read: number;
  readonly seconds: number;
}

interface RunOptions {
  readonly threads: number;
  readonly quick: boolean;
}

function measure(program: string, library: string, lines: readonly string[], o: RunOptions): Figures[] {
  const args = [library, o.quick ? "0.05" : "1.5", String(o.threads)];
  const { status, stdout } = spawnSync(program, args, { input: lines.join("\n"), encoding: "utf8" });
  if (status !== 0) throw new Error(`The product's bench ended with ${status}.`);
  return stdout
    .trim()
    .split("\n")
    .map((line) => {
      const [peak, read, seconds] = line.split(" ").map(Number) as [number, number, number];
      return { peak, read, seconds };
    });
}

const titled = (title: string, threads: number) => `${title}, ${threads === 1 ? "1 thread" : `${threads} threads`}`;

function table(program: string, library: string, shapes: readonly Shape[], o: RunOptions): BenchTable {
  const lines = shapes.map(([, ...numbers]) => `${numbers.join(" ")} 0`);
  const figures = measure(program, library, lines, o);
  // The machine's, not the moment's: what disturbs a short measurement makes it smaller.
  const peak = Math.max(...figures.map((one) => one.peak));
  return {
    title: titled(TITLE, o.threads),
    columns: ["what", "M", "N", "K", "GFLOP/s", "peak", "of peak"],
    rows: shapes.map(([what, m, n, k], i) => {
      const speed = (2 * m * n * k) / figures[i]!.seconds / 1e9;
      return [what, m, n, k, speed, peak, speed / peak];
    }),
    notes: ["a product's fastest run; peak: independent fused multiply-adds in registers, the most seen in this run"],
  };
}

function fewRows(program: string, library: string, o: RunOptions): BenchTable {
  const lines = FEW.map(([dtype, m]) => `${m} ${FEW_COLUMNS} ${FEW_DEPTH} 0 1 0 ${dtype === "f32" ? 0 : 2}`);
  const figures = measure(program, library, lines, o);
  const read = Math.max(...figures.map((one) => one.read));
  return {
    title: titled(FEW_TITLE, o.threads),
    columns: ["weights", "rows", "GB/s", "read", "of read", "GFLOP/s"],
    rows: FEW.map(([dtype, rows], i) => {
      const weights = FEW_COLUMNS * FEW_DEPTH;
      const speed = (weights * (dtype === "f32" ? 4 : 2)) / figures[i]!.seconds / 1e9;
      return [dtype, rows, speed, read, speed / read, (2 * rows * weights) / figures[i]!.seconds / 1e9];
    }),
    notes: [
      `weights (${FEW_COLUMNS}, ${FEW_DEPTH}), each read once; a product's fastest run`,
      "read: the same memory added up by as many threads, the most seen in this run",
    ],
  };
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const cxx = compiler();
  if (cxx === undefined) {
    yield { title: TITLE, columns: [], rows: [], notes: ["not run: there is no C++ compiler"] };
    return;
  }
  const shapes = quick ? SHAPES.slice(5, 7) : SHAPES;
  const library = await cpuLibrary(cxx);
  const program = await testProgram(cxx, "matmul_bench.cc");
  const cores = availableParallelism();
  for (const threads of new Set([1, cores])) {
    yield table(program, library, shapes, { threads, quick });
    yield fewRows(program, library, { threads, quick });
  }
}
