import type { Command } from "commander";
import { print, printJson } from "./command.js";

interface PretrainFlags {
  readonly output: string;
  readonly seed: string;
  readonly json?: boolean;
}

async function runPretrain({ output, seed, json }: PretrainFlags): Promise<void> {
  const { RlsdError } = await import("../errors.js");
  const { pretrain } = await import("../trainer/example/pretrain.js");
  if (!/^\d{1,9}$/.test(seed)) {
    throw new RlsdError("ERR_RLSD_USAGE", `Expected a whole number for --seed but received "${seed}".`);
  }
  const start = performance.now();
  const { parameters } = await pretrain({
    output,
    seed: Number(seed),
    onStep: (step, steps, loss) => {
      if (json) printJson({ step, ...loss });
      else if (step % 25 === 0 || step === 1) {
        const left = (((performance.now() - start) / step) * (steps - step)) / 1000;
        print(
          `step ${step}/${steps}  loss ${loss.plain.toFixed(3)}  with the solution in view ${loss.privileged.toFixed(3)}` +
            `  ${left.toFixed(0)} s left`,
        );
      }
    },
  });
  if (json) printJson({ output, parameters, seconds: (performance.now() - start) / 1000 });
  else print(`${parameters} parameters and the data of the example: ${output}`);
}

export function registerPretrain(program: Command): void {
  program
    .command("pretrain")
    .description("make the base model and the data of the built-in example again, in a few minutes")
    .requiredOption("--output <folder>", "where they go")
    .option("--seed <n>", "of the weights and the lessons", "1")
    .option("--json", "one JSON object a line")
    .addHelpText("after", "\nExample:\n  $ rlsd pretrain --output clock")
    .action((flags: PretrainFlags) => runPretrain(flags));
}
