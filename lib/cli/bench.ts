import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { BenchFlags } from "./bench/options.js";
import type { Pace } from "./bench/timing.js";
import { collect, print, printJson } from "./command.js";
import { onInterrupt } from "./interrupt.js";

const HELP = `
Levels:
  logprob  log-probs given: the loss of many tokens, and what a call of few costs
  logits   logits of student and teacher, gradient in place, against a plain copy of memory
  head     hidden states and an LM head, forward and backward

Examples:
  $ rlsd bench
  $ rlsd bench --level logits --dtype bf16 --vocab 32000 --threads 1
  $ rlsd bench --quick --json | jq '.figures[] | {call, dtype, percentOfCopy}'
  $ rlsd bench --device cuda:0`;

/** Work shorter than this is over before anyone wonders. */
const QUIET_MS = 2000;
const SHOWN_EVERY_MS = 200;

type Terminal = Pick<NodeJS.WriteStream, "isTTY" | "columns"> & { write(text: string): unknown };

/** One line on a terminal that says what is being measured; nothing elsewhere. */
export function createPace(
  signal: AbortSignal,
  terminal: Terminal,
  clock: () => number = () => performance.now(),
): Pace & { clear(): void } {
  const begin = clock();
  let shownAt = 0;
  let shown = false;
  return {
    signal,
    show(what, round) {
      const now = clock();
      if (!terminal.isTTY || now - begin < QUIET_MS || now - shownAt < SHOWN_EVERY_MS) return;
      shownAt = now;
      shown = true;
      const text = `${what}${round > 0 ? `, round ${round}` : ""}, ${((now - begin) / 1000).toFixed(0)} s`;
      terminal.write(`\r\u001b[2K${text.slice(0, Math.max(10, terminal.columns - 1))}`);
    },
    clear() {
      if (shown) terminal.write("\r\u001b[2K");
      shown = false;
    },
  };
}

async function measure(flags: BenchFlags, version: string, signal: AbortSignal): Promise<void> {
  const { examineMachine } = await import("./bench/machine.js");
  const { readOptions } = await import("./bench/options.js");
  const { runBench } = await import("./bench/run.js");
  const { endText, levelText, machineText } = await import("./bench/report.js");
  const machine = examineMachine(version);
  const options = readOptions(flags, machine.poolThreads);
  const pace = createPace(signal, process.stderr);
  const say = (text: string) => {
    pace.clear();
    if (!flags.json) print(text);
  };
  try {
    const report = await runBench(options, machine, {
      pace,
      onStart: (start) => say(machineText(start)),
      onLevel: (figures) => say(levelText(figures)),
    });
    if (flags.json) printJson(report);
    else say(endText(report));
  } finally {
    pace.clear();
  }
}

async function runBenchCommand(flags: BenchFlags, version: string): Promise<void> {
  const { signal, dispose } = onInterrupt(() => {});
  try {
    await measure(flags, version, signal);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // How long an array may be, and what the system gives, is known by trying.
    const message = `The memory for these sizes could not be had: ${error.message}. Make them smaller.`;
    throw new RlsdError("ERR_RLSD_OUT_OF_MEMORY", message, { cause: error });
  } finally {
    dispose();
  }
}

/** `rlsd bench`: what the losses cost on this machine, against what its memory can do in the same seconds. */
export function registerBench(program: Command): void {
  program
    .command("bench")
    .description("measure what the losses cost on this machine, in about 20 seconds")
    .option("--tokens <n>", "tokens of a call; default: by level, from cache and free memory")
    .option("--vocab <n>", "vocabulary; default 151936, less where memory is short")
    .option("--hidden <n>", "hidden size of the head level; default 896")
    .option("--dtype <type>", "f32, bf16 or f16; repeatable; default: all for logits, f32 for the head", collect)
    .option("--level <level>", "logprob, logits or head; repeatable; default: all", collect)
    .option("--threads <n>", "threads of a call, and of the copy beside it; default: all of the pool")
    .option("--device <device>", "cpu, or cuda:0 for a device", "cpu")
    .option("--quick", "fewer rounds and a smaller head: a few seconds, wider spread")
    .option("--json", "one JSON document: machine, method, every figure")
    .addHelpText("after", HELP)
    .action((flags: BenchFlags) => runBenchCommand(flags, program.version() ?? "unknown"));
}
