/** The matrix product against the machine's peak of multiply-adds, both measured in the same seconds. */
import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { compiler, cpuLibrary, testProgram } from "../test/support/cpu-library.js";
import type { BenchOptions, BenchTable } from "./table.js";

const TITLE = "Matrix product, float32, GFLOP/s";

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
  ["decoding 1 sequence", 1, 2048, 2048, 0, 1, 0],
  ["decoding 8", 8, 2048, 2048, 0, 1, 0],
  ["decoding 64", 64, 2048, 2048, 0, 1, 0],
  ["decoding 64, small", 64, 512, 512, 0, 1, 0],
  ["head, logits", 96, 151_936, 896, 0, 1, 0],
  ["head, to hidden states", 96, 896, 151_936, 0, 0, 0],
  ["head, to its weight", 151_936, 896, 96, 1, 0, 1],
];

function table(
  program: string,
  library: string,
  shapes: readonly Shape[],
  threads: number,
  quick: boolean,
): BenchTable {
  const input = shapes.map(([, ...numbers]) => numbers.join(" ")).join("\n");
  const args = [library, quick ? "0.05" : "1.5", String(threads)];
  const { status, stdout } = spawnSync(program, args, { input, encoding: "utf8" });
  if (status !== 0) throw new Error(`The product's bench ended with ${status}.`);
  const figures = stdout
    .trim()
    .split("\n")
    .map((line) => line.split(" ").map(Number) as [peak: number, speed: number]);
  // The machine's, not the moment's: what disturbs a short measurement makes it smaller.
  const peak = Math.max(...figures.map(([highest]) => highest));
  return {
    title: `${TITLE}, ${threads === 1 ? "1 thread" : `${threads} threads`}`,
    columns: ["what", "M", "N", "K", "GFLOP/s", "peak", "of peak"],
    rows: shapes.map(([what, m, n, k], i) => {
      const speed = figures[i]?.[1] ?? Number.NaN;
      return [what, m, n, k, speed, peak, speed / peak];
    }),
    notes: [
      "a product's fastest run; peak: independent fused multiply-adds in registers, the most seen in this run",
      "decoding 1 or 8 reads each weight once for few operations: the memory is its limit, not the multiply-adds",
    ],
  };
}

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const cxx = compiler();
  if (cxx === undefined) {
    yield { title: TITLE, columns: [], rows: [], notes: ["not run: there is no C++ compiler"] };
    return;
  }
  const shapes = quick ? SHAPES.slice(5, 9) : SHAPES;
  const library = await cpuLibrary(cxx);
  const program = await testProgram(cxx, "matmul_bench.cc");
  const cores = availableParallelism();
  for (const threads of new Set([1, cores])) yield table(program, library, shapes, threads, quick);
}
