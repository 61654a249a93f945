import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomStream } from "../lib/trainer/random.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { cliArgs } from "./support/cli.js";
import { runOrKill } from "./support/killed.js";
import { talkingModel } from "./support/talking-policy.js";
import { rowsFile } from "./support/tools.js";

/** What a turn earned depends on all that was said; the state of a conversation is told on. */
const GAME = `
  export const respond = ({ completion, turn, state }) => {
    const said = (state?.said ?? 0) + completion.length;
    const reward = (said % 7) / 7;
    return turn < 3 ? { messages: "more " + said, state: { said }, reward } : { reward, detail: { said } };
  };`;

async function makeTask() {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-environment-kill-"));
  writeFileSync(join(folder, "game.mjs"), GAME);
  const rows = [1, 2, 3, 4, 5].map((n) => ({
    messages: [{ role: "user", content: `Say ${n}.` }],
    trace: `It is ${n}.`,
  }));
  const settings = {
    model: await talkingModel(),
    data: { train: [rowsFile(rows)], eval: [rowsFile(rows.slice(0, 2))] },
    environment: { type: "module", path: join(folder, "game.mjs"), workers: 1 },
    reward: "environment",
    rollout: { prompts: 2, count: 3, maxTokens: 60, stopStrings: ["e", "a", "t"] },
    privileged: { source: "trace" },
    objective: { creditMix: 1 },
    optimizer: { learningRate: 1e-3 },
    teacher: { kind: "ema", rate: 0.9 },
    update: { minibatches: 2 },
    steps: 12,
    eval: { every: 4 },
    checkpoint: { every: 2, keep: 2 },
    log: { samples: 100 },
  };
  writeFileSync(join(folder, "run.json"), JSON.stringify(settings));
  return folder;
}

/** `rlsd train` in that folder until it ends or, milliseconds after it began to train, is killed. */
function runFor(folder: string, run: string, delay = Number.POSITIVE_INFINITY): Promise<"finished" | "killed"> {
  const begun = existsSync(join(folder, run, "config.json"));
  const args = begun ? ["--resume", run] : ["run.json", "--output", run];
  return runOrKill(cliArgs(["train", ...args, "--json", "--no-report"]), delay, { cwd: folder });
}

/** All of a run but what depends on the clock. */
async function traceOf(run: string) {
  const metrics: object[] = [];
  for await (const { time, ...rest } of readMetrics(run)) metrics.push(rest);
  const last = join(run, "checkpoints", "step-000012");
  const files = readdirSync(last, { recursive: true, encoding: "utf8" }).sort();
  const weights = files.filter((name) => name.endsWith(".safetensors"));
  return {
    metrics,
    samples: readFileSync(join(run, "samples.jsonl"), "utf8"),
    files,
    weights: weights.map((name) => readFileSync(join(last, name), "base64")),
  };
}

test("a run with an environment, killed at random moments and resumed, is the run that was never killed", async () => {
  const folder = await makeTask();
  const start = performance.now();
  expect(await runFor(folder, "straight")).toBe("finished");
  // Of which the loading is a part: some kills come too late, and most while it trains.
  const whole = performance.now() - start;
  const expected = await traceOf(join(folder, "straight"));
  expect(expected.weights.length).toBeGreaterThan(1);
  expect(expected.samples).toContain("more ");
  const seed = Date.now();
  const random = randomStream(seed);
  let kills = 0;
  for (let run = 0; run === 0 || kills < 6; run++) {
    while ((await runFor(folder, `killed-${run}`, kills < 6 ? (random() * whole) / 2 : undefined)) === "killed")
      kills++;
    const trace = await traceOf(join(folder, `killed-${run}`));
    expect({ seed, kills, trace }).toEqual({ seed, kills, trace: expected });
  }
}, 300_000);
