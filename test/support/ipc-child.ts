/**
 * Exports memory of an emulated device to another process, which opens it. Without arguments: exports, and prints what the
 * other printed. The other is told its own gate, and lets go of the memory while its device still reads it.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { grpo, policyLossSync, type Tensor, tensor, toDevice, toHost, tokenLogProbsSync } from "../../lib/index.js";
import { exportHandle, fromHandle, fromPointer, pointerOf } from "../../lib/interop.js";

const vector = { shape: [4], dtype: "f32", device: "cuda:0" } as const;
const down = (t: Tensor): number[] => [...toHost(t).data];

function codeOf(call: () => unknown): string {
  try {
    call();
    return "nothing";
  } catch (error) {
    return `${(error as { code: string }).code} ${(error as Error).message}`;
  }
}

/** Handles of whole memory, of a pointer into it, and of a call's result, which lies within an allocation too. */
function share(): void {
  const numbers = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const whole = toDevice(tensor(numbers, [8]), "cuda:0");
  const half = fromPointer(pointerOf(whole) + 16n, vector);
  const batch = { student: { logProbs: fromPointer(pointerOf(whole), vector) }, cuSeqlens: Int32Array.of(0, 4) };
  const kept = policyLossSync({ ...batch, advantages: Float32Array.of(1, 1, 1, 1) }, grpo(), { results: "device" });
  const handles = [whole, half, kept.gradient.logProbs].map((t) => Buffer.from(exportHandle(t)).toString("hex"));
  const folder = mkdtempSync(join(tmpdir(), "rlsd-ipc-"));
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...handles];
  const env = { ...process.env, RLSD_EMULATION_GATE: join(folder, "closed") };
  const seen = JSON.parse(execFileSync(process.execPath, args, { env, encoding: "utf8" }));
  rmSync(folder, { recursive: true });
  const own = codeOf(() => fromHandle(exportHandle(half), vector));
  const unknown = codeOf(() => exportHandle(fromPointer(4096n, vector)));
  process.stdout.write(
    JSON.stringify({ seen, gradient: down(kept.gradient.logProbs), own, unknown, whole: down(whole) }),
  );
}

function open(handles: readonly string[]): void {
  const tensors = handles.map((handle) => fromHandle(Buffer.from(handle, "hex"), vector));
  const seen = tensors.map(down);
  const gate = process.env.RLSD_EMULATION_GATE!;
  const logits = fromHandle(Buffer.from(handles[0]!, "hex"), { ...vector, shape: [2, 4] });
  writeFileSync(gate, "");
  const kept = tokenLogProbsSync({ logits }, Int32Array.of(0, 1), { results: "device" });
  spawn("sh", ["-c", `sleep 0.2; rm ${gate}`], { stdio: "ignore" });
  for (const t of [...tensors, logits]) t[Symbol.dispose]();
  process.stdout.write(JSON.stringify([...seen, down(kept.logProbs).map((value) => value < 0)]));
}

if (process.argv.length > 2) open(process.argv.slice(2));
else share();
