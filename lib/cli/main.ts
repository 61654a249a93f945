#!/usr/bin/env node
import { type Command, CommanderError } from "commander";
import { EXIT, exitCodeOf, printError, printJson } from "./command.js";
import { onOutputLost } from "./interrupt.js";
import { createProgram } from "./program.js";

async function main(argv: readonly string[]): Promise<number> {
  const program = await createProgram(argv);
  const throwing = (command: Command): void => {
    command.exitOverride();
    command.commands.forEach(throwing);
  };
  throwing(program);
  if (argv.length === 0) {
    program.outputHelp();
    return EXIT.ok;
  }
  try {
    await program.parseAsync(argv, { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : EXIT.ok;
  } catch (error) {
    const json = argv.includes("--json");
    if (error instanceof CommanderError) {
      // Commander has printed its own message by now; --help and --version arrive here with exit code 0.
      if (error.exitCode === 0) return EXIT.ok;
      const message = error.message.replace(/^error: /, "");
      if (json) printJson({ kind: "error", error: { code: "ERR_RLSD_USAGE", message } });
      return EXIT.usage;
    }
    printError(error, json);
    return exitCodeOf(error);
  }
}

process.stdout.on("error", onOutputLost);

process.exitCode = await main(process.argv.slice(2));
