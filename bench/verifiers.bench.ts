/** Samples a second: what the killable workers cost, what each verifier takes, and how fast failing workers are replaced. */
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVerifier, type VerifierSpec } from "../lib/verifiers/registry.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import type { BenchOptions, BenchTable } from "./table.js";

const MODULE = `export function verify({ completion, row }) {
  if (completion === "crash") process.abort();
  if (completion === "hang") for (;;);
  return completion === row.answer;
}`;

const never = new AbortController().signal;
const sample = (completion: string, row: Record<string, unknown>): Sample => ({
  id: "s",
  prompt: "",
  completion,
  finish: "stop",
  row,
});

/** Seconds for all samples at once, workers started before; and the verdicts that were null. */
async function time(spec: VerifierSpec, samples: readonly Sample[]): Promise<{ seconds: number; undecided: number }> {
  const verifier = createVerifier(spec);
  await verifier.verify(samples[0]!, never);
  const start = performance.now();
  const verdicts = await Promise.all(samples.map((one) => verifier.verify(one, never)));
  const seconds = (performance.now() - start) / 1000;
  await verifier.dispose?.();
  return { seconds, undecided: verdicts.filter(({ reward }) => reward === null).length };
}

const solution = (answer: string) =>
  `${"We work through the cases one by one. ".repeat(40)}\nThe answer is $\\boxed{${answer}}$.`;

const KINDS: readonly (readonly [name: string, spec: VerifierSpec, made: (i: number) => Sample])[] = [
  ["choice (inline)", "choice", (i) => sample(solution("ABCD"[i % 4]!), { answer: "B" })],
  ["numeric (inline)", "numeric", (i) => sample(solution(String(i)), { answer: i })],
  ["math, integers", { type: "math", workers: 2 }, (i) => sample(solution(String(i)), { answer: String(i + (i % 2)) })],
  [
    "math, fraction against decimal",
    { type: "math", workers: 2 },
    (i) => sample(solution(`${i / 8}`), { answer: `\\frac{${i}}{8}` }),
  ],
  ["math, intervals", { type: "math", workers: 2 }, (i) => sample(solution(`(-\\infty,${i})`), { answer: `x<${i}` })],
  [
    "math, wrong polynomials",
    { type: "math", workers: 2 },
    (i) => sample(solution(`(x+${i})^2+1`), { answer: `x^2+${2 * i}x+${i * i}` }),
  ],
  [
    "math, right polynomials",
    { type: "math", workers: 2 },
    (i) => sample(solution(`(x+${i})^2`), { answer: `x^2+${2 * i}x+${i * i}` }),
  ],
  [
    "schema",
    { type: "schema", workers: 2, schema: { type: "object", required: ["a"], properties: { a: { type: "integer" } } } },
    (i) => sample(`Here: {"a": ${i}}`, {}),
  ],
];

export async function* run({ quick }: BenchOptions): AsyncGenerator<BenchTable> {
  const folder = await mkdtemp(join(tmpdir(), "rlsd-bench-"));
  const path = join(folder, "verify.mjs");
  writeFileSync(path, MODULE);
  const scale = quick ? 0.05 : 1;
  const counted = (n: number) => Math.max(8, Math.round(n * scale));
  const speed: (string | number)[][] = [];
  for (const [name, spec, made] of KINDS) {
    const n = counted(name.includes("right poly") ? 400 : 20_000);
    const { seconds } = await time(
      spec,
      Array.from({ length: n }, (_, i) => made(i)),
    );
    speed.push([name, n, n / seconds]);
  }
  const faults: (string | number)[][] = [];
  for (const workers of [1, 2, 4]) {
    for (const [what, every, n] of [
      ["none", Number.POSITIVE_INFINITY, 20_000],
      ["1 crash in 100", 100, 4000],
      ["1 hang in 100, deadline 100 ms", 100, 2000],
    ] as const) {
      const bad = what.includes("hang") ? "hang" : "crash";
      const samples = Array.from({ length: counted(n) }, (_, i) =>
        sample(i % every === every - 1 ? bad : "x", { answer: "x" }),
      );
      const { seconds, undecided } = await time(
        { type: "module", path, workers, ...(bad === "hang" && { deadlineMs: 100 }) },
        samples,
      );
      faults.push([workers, what, samples.length, undecided, samples.length / seconds]);
    }
  }
  await rm(folder, { recursive: true });
  yield* [
    {
      title: "Verifiers, completions of 1,500 characters, all submitted at once",
      columns: ["verifier", "samples", "samples/s"],
      rows: speed,
      notes: ["Those that are not inline run in two worker processes, started before the clock."],
    },
    {
      title: "The harness with a verifier that does nothing, by faults",
      columns: ["workers", "faults", "samples", "undecided", "samples/s"],
      rows: faults,
      notes: ["Every fault costs one process: a new one starts in about the time that Node takes."],
    },
  ];
}
