// A run in a process of its own, to be killed: train-child.ts SETTINGS.json [--resume]
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../../lib/trainer/config.js";
import { train } from "../../lib/trainer/train.js";
import { TinyPolicy } from "./tiny-policy.js";
import { shareOfLetter } from "./tiny-task.js";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8")) as TrainConfig & { output: string };
const begun = existsSync(join(settings.output, "config.json"));
train(
  { ...settings, reward: shareOfLetter },
  {
    loadPolicy: TinyPolicy.load,
    ...(begun && { resume: settings.output }),
    onStart: () => process.stdout.write("started\n"),
  },
).then(
  () => process.stdout.write("finished\n"),
  (error: Error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  },
);
