import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import { rlsd } from "../objectives/presets.js";
import { groupAdvantages } from "../ops/advantages.js";
import { type BackendInfo, backendInfo } from "../ops/backend-info.js";
import { policyLossSync } from "../ops/policy-loss.js";
import { EXIT, print, printJson } from "./command.js";

/** Two answers to one prompt, the first right, of three tokens each; the teacher has seen the answer. */
const EXAMPLE = {
  rewards: [1, 0],
  tokens: ["3", "x", "=28", "3", "x", "=27"],
  student: [-0.4, -0.1, -0.9, -0.4, -0.1, -0.7],
  teacher: [-0.4, -0.1, -0.2, -0.4, -0.1, -3.5],
} as const;

/** What docs/maths.md works out by hand for the example: c = clip(exp(sign(A) delta), 0.8, 1.2). */
const EXPECTED_WEIGHTS = [1, 1, 1.2, 1, 1, 1.2];

export interface DoctorReport {
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly backends: Readonly<Record<string, BackendInfo>>;
  readonly example: {
    readonly loss: number;
    readonly tokens: { token: string; advantage: number; weight: number; gradient: number }[];
    readonly correct: boolean;
  };
}

function workedExample(): DoctorReport["example"] {
  const result = policyLossSync(
    {
      student: { logProbs: Float32Array.from(EXAMPLE.student) },
      teacher: { logProbs: Float32Array.from(EXAMPLE.teacher) },
      cuSeqlens: Int32Array.of(0, 3, 6),
      advantages: groupAdvantages(EXAMPLE.rewards, [0, 0]),
    },
    rlsd(),
  );
  const weights = result.evidenceWeights ?? new Float32Array(0);
  const tokens = EXAMPLE.tokens.map((token, i) => ({
    token,
    advantage: result.tokenAdvantages[i] ?? Number.NaN,
    weight: weights[i] ?? Number.NaN,
    gradient: result.gradient.logProbs[i] ?? Number.NaN,
  }));
  const correct = EXPECTED_WEIGHTS.every((expected, i) => Math.abs((weights[i] ?? Number.NaN) - expected) < 1e-6);
  return { loss: result.loss, tokens, correct };
}

export function examine(): DoctorReport {
  return {
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    backends: backendInfo(),
    example: workedExample(),
  };
}

function printReport(report: DoctorReport): void {
  print(`Node ${report.node} on ${report.platform}, ${report.cpu}, ${report.cores} cores, ${report.memoryGiB} GiB`);
  for (const backend of Object.values(report.backends)) {
    const threads = backend.threads === undefined ? "" : `, ${backend.threads} threads`;
    print(`${backend.name}: ${backend.available ? `available${threads}` : `not available: ${backend.reason}`}`);
  }
  print("\nThe loss on a worked example: two answers to one prompt, the first right.");
  print("token  advantage  evidence weight  dL/dlogP");
  for (const t of report.example.tokens) {
    const numbers = [
      t.advantage.toFixed(3).padStart(9),
      t.weight.toFixed(3).padStart(15),
      t.gradient.toFixed(4).padStart(8),
    ];
    print(`${t.token.padEnd(5)}  ${numbers.join("  ")}`);
  }
  print(`loss ${report.example.loss.toFixed(6)}: ${report.example.correct ? "as worked out by hand" : "WRONG"}`);
}

/** `rlsd doctor`: what this machine has, and whether the kernels compute what they should. */
export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("Show what this machine offers and check the kernels on a worked example.")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExamples:\n  rlsd doctor\n  rlsd doctor --json | jq .backends")
    .action((options: { json?: boolean }) => {
      const report = examine();
      if (options.json) printJson(report);
      else printReport(report);
      process.exitCode = report.example.correct ? EXIT.ok : EXIT.failed;
    });
}
