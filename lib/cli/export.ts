import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { ExportSummary } from "../trainer/export-model.js";
import { Interrupted, print, printJson } from "./command.js";
import { onInterrupt } from "./interrupt.js";
import { meanwhile } from "./slowly.js";

interface ExportFlags {
  readonly dtype: string;
  readonly base?: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ rlsd export runs/first ./clock                the run's best checkpoint
  $ rlsd export runs/first ./clock --dtype bf16   in half the bytes
  $ rlsd export runs/first model.gguf             for llama.cpp, Ollama, LM Studio
  $ rlsd export ./adapters ./merged --base ./qwen3-0.6b`;

function describe({ model, folder, step, parameters, dtype, merged, notes }: ExportSummary): string {
  const lines = [`model     ${model}${step > 0 ? `, after step ${step}` : ""}`];
  if (merged !== null)
    lines.push(`adapters  rank ${merged.rank} on ${merged.targets.join(", ")}: added to the weights`);
  lines.push(`written   ${folder}: ${parameters.toLocaleString("en")} parameters as ${dtype}`);
  return [...lines, ...notes.map((note) => `note      ${note}`)].join("\n");
}

async function runExport(directory: string, output: string, flags: ExportFlags): Promise<void> {
  const { EXPORT_DTYPES, exportModel } = await import("../trainer/export-model.js");
  const dtype = EXPORT_DTYPES.find((name) => name === flags.dtype);
  if (dtype === undefined) {
    const message = `Expected ${EXPORT_DTYPES.join(", ")} for --dtype but received "${flags.dtype}".`;
    throw new RlsdError("ERR_RLSD_USAGE", message);
  }
  let stage = "reading";
  const quiet = meanwhile(() => stage);
  const { signal, dispose } = onInterrupt(() => {});
  try {
    const onStage = (next: string): void => {
      stage = next;
    };
    const summary = await exportModel(directory, output, { dtype, base: flags.base, signal, onStage });
    if (flags.json) printJson(summary);
    else print(describe(summary));
  } catch (error) {
    throw error instanceof Interrupted ? new Interrupted("interrupted: nothing was written") : error;
  } finally {
    dispose();
    quiet();
  }
}

export function registerExport(program: Command): void {
  program
    .command("export")
    .description("write a run's model as one Hugging Face folder or GGUF file, adapters added to its weights")
    .argument("<directory>", "run, checkpoint, model folder or .gguf file, or adapters")
    .argument("<output>", "new folder, or new file that ends in .gguf")
    .option("--dtype <type>", "of the weights: f32, bf16 or f16, in a .gguf file also q8_0", "f32")
    .option("--base <folder>", "the model under the adapters; default: what they say themselves")
    .option("--json", "one JSON object")
    .addHelpText("after", EXAMPLES)
    .action((directory: string, output: string, flags: ExportFlags) => runExport(directory, output, flags));
}
