import type { Command } from "commander";
import { EXIT, printJson } from "./command.js";

/** `rlsd doctor`: what this machine has, and whether the kernels compute what they should. */
export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("show what this machine offers and check the kernels on a worked example")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExamples:\n  $ rlsd doctor\n  $ rlsd doctor --json | jq .backends")
    .action(async (options: { json?: boolean }) => {
      const { examine, printReport } = await import("./doctor-report.js");
      const report = examine();
      if (options.json) printJson(report);
      else printReport(report);
      process.exitCode = report.example.correct ? EXIT.ok : EXIT.failed;
    });
}
