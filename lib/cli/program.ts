import { Command } from "commander";
import { packageVersion } from "../version.js";
import { readable } from "./command.js";

type Register = (program: Command) => void;

/** Every command, in the order of the help. */
const COMMANDS: Readonly<Record<string, () => Promise<Register>>> = {
  train: async () => (await import("./train.js")).registerTrain,
  compare: async () => (await import("./compare.js")).registerCompare,
  report: async () => (await import("./report.js")).registerReport,
  eval: async () => (await import("./eval.js")).registerEval,
  generate: async () => (await import("./generate.js")).registerGenerate,
  export: async () => (await import("./export.js")).registerExport,
  score: async () => (await import("./score.js")).registerScore,
  credit: async () => (await import("./credit.js")).registerCredit,
  pretrain: async () => (await import("./pretrain.js")).registerPretrain,
  bench: async () => (await import("./bench.js")).registerBench,
  doctor: async () => (await import("./doctor.js")).registerDoctor,
};

/**
 * The command line for one call. The command that it names is all that is loaded; a call that names none (help, a
 * misspelt one) needs them all.
 */
export async function createProgram(argv: readonly string[]): Promise<Command> {
  const program = new Command("rlsd")
    .description("Self-distilled RLVR: train small reasoning models from a verifier, with per-token credit.")
    .version(packageVersion())
    .configureOutput({ outputError: (text, write) => write(readable(text)) })
    .showHelpAfterError("(add --help for usage)");
  const named = argv[0] !== undefined && Object.hasOwn(COMMANDS, argv[0]) ? COMMANDS[argv[0]] : undefined;
  const loads = named === undefined ? Object.values(COMMANDS) : [named];
  for (const register of await Promise.all(loads.map((load) => load()))) register(program);
  return program;
}
