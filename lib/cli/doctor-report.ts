import { cpus, totalmem } from "node:os";
import { RlsdError } from "../errors.js";
import { rlsd } from "../objectives/presets.js";
import { groupAdvantages } from "../ops/advantages.js";
import { type BackendInfo, backendInfo } from "../ops/backend-info.js";
import { type DeviceRows, deviceRows, deviceRowsText } from "../ops/device-rows.js";
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

/** Rows that are too wide for one multiprocessor. */
const ROWS = { vocab: 151936, dtype: "bf16" } as const;

type RowsOfDevice = typeof ROWS & { readonly device: string } & (DeviceRows | { readonly message: string });

interface DoctorReport {
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly backends: Readonly<Record<string, BackendInfo>>;
  /** Which kernel each device has for rows of a Qwen vocabulary, or why none; a device that may use none is left out. */
  readonly rows: readonly RowsOfDevice[];
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

function rowsOfDevices(cuda: BackendInfo): RowsOfDevice[] {
  return (cuda.devices ?? []).flatMap(({ message }, ordinal): RowsOfDevice[] => {
    const device = `cuda:${ordinal}`;
    if (message !== undefined) return [];
    try {
      return [{ device, ...ROWS, ...deviceRows(device, ROWS.vocab, ROWS.dtype, rlsd()) }];
    } catch (error) {
      if (!(error instanceof RlsdError)) throw error;
      // Of kernels that have not passed on a GPU the report speaks already.
      return error.code === "ERR_RLSD_UNSUPPORTED" ? [] : [{ device, ...ROWS, message: error.message }];
    }
  });
}

/** Everything that `rlsd doctor` says. Throws ERR_RLSD_LOAD, with the way out, where the addon cannot be loaded. */
export function examine(): DoctorReport {
  const backends = backendInfo();
  return {
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    backends,
    rows: rowsOfDevices(backends.cuda),
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
  for (const { device, vocab, dtype, ...rows } of report.rows) {
    const text = "message" in rows ? rows.message : deviceRowsText(rows);
    print(`${device}: rows of ${vocab} ${dtype} columns: ${text}`);
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
