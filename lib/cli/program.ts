import { Command } from "commander";
import { packageVersion } from "../version.js";
import { registerBench } from "./bench.js";
import { readable } from "./command.js";
import { registerCompare } from "./compare.js";
import { registerCredit } from "./credit.js";
import { registerDoctor } from "./doctor.js";
import { registerEval } from "./eval.js";
import { registerExport } from "./export.js";
import { registerGenerate } from "./generate.js";
import { registerPretrain } from "./pretrain.js";
import { registerReport } from "./report.js";
import { registerScore } from "./score.js";
import { registerTrain } from "./train.js";

/** One entry a command, in the order of the help. */
const COMMANDS: readonly ((program: Command) => void)[] = [
  registerTrain,
  registerCompare,
  registerReport,
  registerEval,
  registerGenerate,
  registerExport,
  registerScore,
  registerCredit,
  registerPretrain,
  registerBench,
  registerDoctor,
];

/** The whole command line. Each command registers itself and loads what it needs when it runs. */
export function createProgram(): Command {
  const program = new Command("rlsd")
    .description("Self-distilled RLVR: train small reasoning models from a verifier, with per-token credit.")
    .version(packageVersion())
    .configureOutput({ outputError: (text, write) => write(readable(text)) })
    .showHelpAfterError("(add --help for usage)");
  for (const register of COMMANDS) register(program);
  return program;
}
