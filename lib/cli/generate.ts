import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { Asked, AskOptions, AskSettings } from "../trainer/generate-run.js";
import type { Prompted, Rollout } from "../trainer/rollout.js";
import type { Speed } from "./answer.js";
import { collect, decimal, optionName, print, printJson, tell, wholeNumber } from "./command.js";
import { onInterrupt } from "./interrupt.js";
import { oneLine } from "./one-line.js";
import { meanwhile } from "./slowly.js";

interface GenerateFlags {
  readonly file?: readonly string[];
  readonly limit?: number;
  readonly system?: string;
  readonly count: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
  readonly seed?: number;
  readonly set?: readonly string[];
  readonly base?: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Without a prompt: standard input is one, and on a terminal a conversation begins, a line a turn.
A run brings its own system message, columns, lengths and stops, as its settings have them.

Examples:
  $ rlsd generate runs/first "Clock at 12, then + 4 + 6 + 8."
  $ rlsd generate runs/first "Clock at 12, then + 4 + 6 + 8." --count 4 --seed 2
  $ rlsd generate runs/first --file questions.jsonl --json > answers.jsonl
  $ rlsd generate ./adapters --base ./qwen3-0.6b < question.txt
  $ rlsd generate ./qwen3-0.6b --temperature 0.7 --set data.templateVariables.enable_thinking=false`;

/** What is said where it takes long, until `quiet` is called. */
interface Progress {
  stage: string;
  quiet: () => void;
}

const usage = (message: string): RlsdError => new RlsdError("ERR_RLSD_USAGE", message);

/** The settings that flags are other words for. */
async function settingsOf(flags: GenerateFlags): Promise<AskSettings> {
  const { merge, parseSet } = await import("../trainer/config-file.js");
  const { system, topP, topK, minP, maxTokens, stop: stopStrings, seed } = flags;
  const given = <T extends object>(values: T) =>
    Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  const set = await parseSet(flags.set);
  const ofRows = ["fields", "invalid"].find((name) => Object(set.data)[name] !== undefined);
  if (ofRows !== undefined && flags.file === undefined) throw usage(`--set data.${ofRows} is for the rows of --file.`);
  return merge(set, {
    ...given({ seed }),
    // An empty one takes the run's own away.
    data: given({ system: system === "" ? null : system }),
    rollout: given({ topP, topK, minP, maxTokens, stopStrings }),
  }) as AskSettings;
}

/** Flags that say how tokens are drawn at random. */
const DRAWING = ["topP", "topK", "minP", "seed"] as const;

/** Without a temperature the likeliest token is taken: what was given to draw by would be forgotten in silence. */
function refuseGreedy(flags: GenerateFlags): void {
  if (flags.temperature !== undefined || flags.count > 1) return;
  const idle = DRAWING.find((name) => flags[name] !== undefined);
  if (idle === undefined) return;
  const name = optionName(idle);
  throw usage(
    `${name} has no effect where the likeliest token is taken: give --temperature or --count too, or leave out ${name}.`,
  );
}

/** All of stdin but the line break that ends it. */
async function readPrompt(): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of process.stdin) parts.push(part as Buffer);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)).replace(/\r?\n$/, "");
  } catch (error) {
    throw new RlsdError("ERR_RLSD_USAGE", "Expected text in UTF-8 on standard input.", { cause: error });
  }
}

/** The prompts of the command line; undefined: a conversation. Those of files are read when the model is there. */
async function givenPrompts(prompts: readonly string[], flags: GenerateFlags): Promise<readonly string[] | undefined> {
  if (flags.file !== undefined) {
    if (prompts.length === 0) return [];
    throw usage(
      "Expected prompts or --file but received both: leave one out. A pattern stands in quotes: --file 'rows/*.jsonl'.",
    );
  }
  if (flags.limit !== undefined) throw usage("--limit is for the rows of --file.");
  if (prompts.length === 0 && process.stdin.isTTY === true) {
    if (flags.count === 1) return undefined;
    throw usage("--count is for prompts: in a conversation every line has one answer.");
  }
  const texts = prompts.length > 0 ? prompts : [await readPrompt()];
  if (texts.every((text) => text.trim() !== "")) return texts;
  throw usage("Expected a prompt but it is empty: name one, or --file, or write one to standard input.");
}

async function readPrompts(asked: Asked, given: readonly string[], flags: GenerateFlags): Promise<readonly Prompted[]> {
  const { promptOf, promptsIn } = await import("../trainer/generate-run.js");
  if (flags.file === undefined) {
    return given.map((content, i) => promptOf(asked, [{ role: "user", content }], String(i)));
  }
  const { prompts, skipped } = await promptsIn(asked, flags.file, flags.limit ?? 0);
  if (skipped > 0) tell(`rlsd: ${skipped} rows left out: they do not fit`);
  return prompts;
}

/** What is asked, where more than one thing is, and the completions. */
function printAnswers(rollouts: readonly Rollout[], several: boolean, count: number): void {
  for (const [i, { prompt, group, text }] of rollouts.entries()) {
    if (several && i % count === 0) {
      const question = oneLine(prompt.example.messages.at(-1)?.content ?? "", 78);
      print(`${group > 0 ? "\n" : ""}> ${question}`);
    }
    print(count > 1 ? `[${(i % count) + 1}] ${text}` : text);
  }
}

/** Answers every prompt and prints them; what is printed is whole, but for one alone on a terminal. */
async function askAll(
  asked: Asked,
  prompts: readonly Prompted[],
  o: AskOptions,
  { json = false, speed, progress }: { json?: boolean | undefined; speed: Speed; progress: Progress },
): Promise<void> {
  const { answers } = await import("../trainer/generate-run.js");
  const { answerLine, createLiveText, tellFault } = await import("./answer.js");
  const alone = prompts.length === 1 && o.count === 1 && !json && process.stdout.isTTY === true;
  const live = alone ? createLiveText(asked.tokenizer) : undefined;
  const onToken = (id: number) => {
    speed.token();
    live?.token(id);
    if (live !== undefined && live.shown !== "") progress.quiet();
  };
  const total = prompts.length * o.count;
  const drawn = answers(asked, prompts, { ...o, onToken, onReply: (replies) => live?.reply(replies) });
  const show = (rollouts: readonly Rollout[]) => {
    if (json) for (const rollout of rollouts) printJson(answerLine(rollout));
    else if (live !== undefined) live.end(rollouts[0]!.text);
    else printAnswers(rollouts, prompts.length > 1, o.count);
    for (const rollout of rollouts) tellFault(rollout, live !== undefined);
  };
  try {
    for (let done = 0; ; ) {
      progress.stage = total > 1 ? `${done} of ${total} completions` : "drawing";
      const { value } = await speed.during(() => drawn.next());
      if (value === undefined) return;
      show(value as Rollout[]);
      done += value.length;
    }
  } finally {
    if (live !== undefined) process.stdout.write("\n");
  }
}

async function runGenerate(directory: string, prompts: readonly string[], flags: GenerateFlags): Promise<void> {
  const { openAsked, disposeAsked } = await import("../trainer/generate-run.js");
  const { createSpeed } = await import("./answer.js");
  const { base, json = false, count, temperature = count > 1 ? 1 : 0 } = flags;
  refuseGreedy(flags);
  const settings = await settingsOf(flags);
  const given = await givenPrompts(prompts, flags);
  const speed = createSpeed();
  const interrupt = onInterrupt(() => {});
  const progress = { stage: "reading the model", quiet: () => {} };
  progress.quiet = meanwhile(() => progress.stage + (speed.tokens === 0 ? "" : `, ${speed.tokens} tokens`));
  let dispose = async () => {};
  try {
    const asked = await openAsked(directory, settings, { base });
    dispose = () => disposeAsked(asked);
    interrupt.signal.throwIfAborted();
    if (given === undefined) {
      progress.quiet();
      interrupt.dispose();
      const { converse } = await import("./conversation.js");
      await converse(asked, { temperature, json, speed });
      return;
    }
    const all = await readPrompts(asked, given, flags);
    await askAll(asked, all, { count, temperature, signal: interrupt.signal }, { json, speed, progress });
  } finally {
    progress.quiet();
    interrupt.dispose();
    speed.tell();
    await dispose();
  }
}

export function registerGenerate(program: Command): void {
  const whole = (option: string, least: number) => (text: string) => wholeNumber(text, option, least);
  program
    .command("generate")
    .description("ask a run, a checkpoint or a model")
    .argument("<model>", "run, checkpoint, model folder or .gguf file, or adapters")
    .argument("[prompts...]", "what is asked; default: standard input, or on a terminal a conversation")
    .option("--file <rows>", "file, folder or pattern with rows as for training; repeatable", collect)
    .option("--limit <n>", "rows at most", whole("--limit", 1))
    .option("--system <text>", "system message; default: the run's")
    .option("--count <n>", "completions of each prompt", whole("--count", 1), 1)
    .option("--temperature <t>", "0 is greedy; default: 0, and 1 where --count is more than 1", (text) =>
      decimal(text, "--temperature", { min: 0 }),
    )
    .option("--top-p <p>", "drawn from the likeliest tokens of this share; default: the run's, or 1: off", (text) =>
      decimal(text, "--top-p", { above: 0, max: 1 }),
    )
    .option("--top-k <n>", "drawn from so many tokens; default: the run's, or 0: off", whole("--top-k", 0))
    .option("--min-p <p>", "no token below this share of the likeliest; default: the run's, or 0: off", (text) =>
      decimal(text, "--min-p", { min: 0, max: 1 }),
    )
    .option("--max-tokens <n>", "of a completion; default: the run's, or 256", whole("--max-tokens", 1))
    .option("--stop <text>", "a text that ends a completion; repeatable; default: the run's", collect)
    .option("--seed <n>", "of what is drawn; default: the run's, or 1", whole("--seed", 0))
    .option("--set <key=value>", "one setting of data, as --set data.fields.prompt=task; repeatable", collect)
    .option("--base <folder>", "the model under adapters; default: what they say themselves")
    .option("--json", "one JSON object a completion")
    .addHelpText("after", EXAMPLES)
    .action((model: string, prompts: string[], flags: GenerateFlags) => runGenerate(model, prompts, flags));
}
