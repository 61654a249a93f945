import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(__dirname, "..");
const run = promisify(execFile);

/**
 * A process whose worker turns an index that a synchronous call uses right and wrong all the time: each call must go well
 * or refuse, whatever it meets between its check and its use.
 */
const race = (call: string): string => `
const { Worker } = require("node:worker_threads");
const rlsd = require(${JSON.stringify(join(root, "dist/index.js"))});
const [N, V] = [256, 500];
const index = new Int32Array(new SharedArrayBuffer(4 * N)), done = new Int32Array(new SharedArrayBuffer(4));
new Worker(\`const { index, done } = require("node:worker_threads").workerData;
while (Atomics.load(done, 0) === 0) { index.fill(2 ** 30); index.fill(0); }\`, { eval: true, workerData: { index, done } });
const logits = rlsd.empty([N, V], "f32"), counts = { good: 0, refused: 0, wrong: 0 }, end = Date.now() + 1500;
while (Date.now() < end) {
  try {
    const { logProbs } = ${call};
    counts[logProbs.every((x) => Math.abs(x + Math.log(V)) < 1e-3) ? "good" : "wrong"] += 1;
  } catch (error) {
    if (error.code !== "ERR_RLSD_INVALID_ARGUMENT") throw error;
    counts.refused += 1;
  }
}
Atomics.store(done, 0, 1);
console.log(JSON.stringify(counts));`;

const OFFSETS = "cuSeqlens: Int32Array.of(0, N), advantages: Float32Array.of(1)";

describe("an index in memory that another thread changes during a call", () => {
  it.each([
    [
      "tokenIds of policyLossSync",
      `rlsd.policyLossSync({ student: { logits }, tokenIds: index, ${OFFSETS} }, rlsd.grpo())`,
    ],
    ["tokenIds of tokenLogProbsSync", "rlsd.tokenLogProbsSync({ logits }, index)"],
    ["rows of tokenLogProbsSync", "rlsd.tokenLogProbsSync({ logits, rows: index }, new Int32Array(N))"],
  ])(
    "%s: right or refused, never out of bounds",
    async (_, call) => {
      const { stdout } = await run(process.execPath, ["-e", race(call)]);
      const counts = JSON.parse(stdout) as { good: number; refused: number; wrong: number };
      expect(counts.wrong).toBe(0);
      expect(counts.good + counts.refused).toBeGreaterThan(0);
    },
    30_000,
  );
});
