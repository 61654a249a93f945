import { spawnSync } from "node:child_process";
import { join } from "node:path";

const main = join(__dirname, "../../dist/cli/main.js");

/** Arguments of node that run the command line as it is built. */
export const cliArgs = (args: readonly string[]): string[] => [main, ...args];

/** `rlsd ...args` in a folder. */
export function runCli(args: readonly string[], cwd: string, env: Readonly<Record<string, string>> = {}) {
  const options = { encoding: "utf8", cwd, env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, cliArgs(args), options);
  return { status, stdout, stderr };
}
