#!/usr/bin/env node
import { CommanderError } from "commander";
import { EXIT, exitCodeOf, printError } from "./command.js";
import { createProgram } from "./program.js";

async function main(argv: readonly string[]): Promise<number> {
  const program = createProgram();
  const throwing = (command: ReturnType<typeof createProgram>): void => {
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
    // Commander has printed its own message by now; --help and --version arrive here with exit code 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    printError(error, argv.includes("--json"));
    return exitCodeOf(error);
  }
}

// A reader that went away (`rlsd ... | head`) is no error of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.ok);
  throw error;
});

process.exitCode = await main(process.argv.slice(2));
