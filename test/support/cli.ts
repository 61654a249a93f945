import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const register = pathToFileURL(join(__dirname, "../../scripts/ts-register.mjs")).href;
const main = join(__dirname, "../../lib/cli/main.ts");

/** Arguments of node that run the command line from its sources. */
export const cliArgs = (args: readonly string[]): string[] => ["--import", register, main, ...args];

/** `rlsd ...args` in a folder. */
export function runCli(args: readonly string[], cwd: string, env: Readonly<Record<string, string>> = {}) {
  const options = { encoding: "utf8", cwd, env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, cliArgs(args), options);
  return { status, stdout, stderr };
}
