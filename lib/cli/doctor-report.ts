import { cpus, totalmem } from "node:os";
import { rlsd } from "../objectives/presets.js";
import { groupAdvantages } from "../ops/advantages.js";
import { type BackendInfo, backendInfo } from "../ops/backend-info.js";
import { policyLossSync } from "../ops/policy-loss.js";
import { print } from "./command.js";

/** Two answers to one prompt, the first right, of three tokens each; the teacher has seen the answer. */
const EXAMPLE = {
  rewards: [1, 0],
  tokens: ["3", "x", "=28", "3", "x", "=27"],
  student: [-0.4, -0.1, -0.9, -0.4, -0.1, -0.7],
  teacher: [-0.4, -0.1, -0.2, -0.4, -0.1, -3.5],
} as const;

/** What docs/maths.md works out by hand for the example: c = clip(exp(sign(A) delta), 0.8, 1.2). */
const EXPECTED_WEIGHTS = [1, 1, 1.2, 1, 1, 1.2];

interface DoctorReport {
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
  const weights = result.evidenceWeights;
  const tokens = EXAMPLE.tokens.map((token, i) => ({
    token,
    advantage: result.tokenAdvantages[i] ?? Number.NaN,
    weight: weights[i] ?? Number.NaN,
    gradient: result.gradient.logProbs[i] ?? Number.NaN,
  }));
  const correct = EXPECTED_WEIGHTS.every((expected, i) => Math.abs((weights[i] ?? Number.NaN) - expected) < 1e-6);
  return { loss: result.loss, tokens, correct };
}

/** Everything that `rlsd doctor` says. Throws ERR_RLSD_LOAD, with the way out, where the addon cannot be loaded. */
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

function printBackend(backend: BackendInfo): void {
  const types = backend.matmulTypes?.includes("bf16") ? ", products of bf16 (matmulType)" : "";
  const threads =
    backend.threads === undefined
      ? ""
      : `, ${backend.threads} ${backend.threads === 1 ? "thread" : "threads"}, ${backend.instructionSet}${types}`;
  const why = [backend.reason, backend.message].filter((text) => text !== undefined).join(": ");
  print(`${backend.name}: ${backend.available ? `available${threads}` : `not available: ${why}`}`);
  for (const device of backend.devices ?? []) {
    const memory = `${((device.memoryBytes ?? 0) / 2 ** 30).toFixed(0)} GiB`;
    print(`  ${device.message ?? `${device.name}, compute capability ${device.compute}, ${memory}`}`);
  }
  for (const [kernel, passed] of Object.entries(backend.kernels ?? {})) {
    print(`  ${kernel}: ${passed ? "passed on a GPU" : "not yet run on a GPU; RLSD_CUDA_EXPERIMENTAL=1 allows it"}`);
  }
}

/** The report for people. */
export function printReport(report: DoctorReport): void {
  print(`Node ${report.node} on ${report.platform}, ${report.cpu}, ${report.cores} cores, ${report.memoryGiB} GiB`);
  for (const backend of Object.values(report.backends)) printBackend(backend);
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
