import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../lib/trainer/config.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { train } from "../lib/trainer/train.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

/** Names that have a number in them, or that of a part. */
const MADE = /^(reward\/.+|(avg|pass)@\d+(Low|High)?)$/;

test("every number that a run logs is typed by its name, and no other is", async () => {
  const source = readFileSync(join(__dirname, "../lib/trainer/metrics-line.ts"), "utf8");
  const named = new Set(Array.from(source.matchAll(/^ {2}readonly (\w+)\??:/gm), ([, name]) => name!));
  const seen = new Set<string>();
  const look = (line: MetricsLine) => {
    for (const name of Object.keys(line)) if (!MADE.test(name)) seen.add(name);
  };
  const changes: TrainConfig[] = [
    { objective: { creditMix: 1, klCoef: 0.1 }, eval: { every: 1, samples: 2 } },
    { algorithm: "opsd", distill: { divergence: "sampled-reverse-kl" } },
    { algorithm: "sft", reward: [{ verifier: "text", name: "right" }, { verifier: () => 1 }] },
  ];
  for (const change of changes) {
    const { settings } = tinyTask();
    const hooks = { loadPolicy: TinyPolicy.load, onStep: look, onEval: look };
    await train({ ...settings, steps: 1, ...change }, hooks);
  }
  expect([...seen].filter((name) => !named.has(name))).toEqual([]);
  // These are of conversations, of distributions, and of groups with nothing to contrast.
  const others = ["turns", "divergenceClamped", "withoutContrast"];
  expect([...named].filter((name) => !seen.has(name) && !others.includes(name))).toEqual([]);
});
