import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

/** A program of this folder as node runs it: see built.cjs. */
export const program = (name: string): string =>
  join(import.meta.dirname, "../../build/test-support", name.replace(/\.ts$/, ".js"));

/**
 * The JSON that a program of test/support prints, run with these variables besides this process's, without those that are
 * undefined: the environment reaches native code only so. Its exit code is its own affair; a crash, or a complaint of the
 * emulated device, is not.
 */
export async function child(
  name: string,
  variables: Record<string, string | undefined>,
  ...rest: readonly string[]
): Promise<unknown> {
  const env = { ...process.env, ...variables };
  const ended = await promisify(execFile)(process.execPath, [program(name), ...rest], { env }).catch((error) => error);
  const { stdout, stderr, signal } = ended as { stdout: string; stderr: string; signal?: string | null };
  const isWrong = stdout === "" || (signal ?? null) !== null || /cuda emulation:/.test(stderr);
  if (isWrong) throw new Error(`${name} ended (${signal}) with: ${stderr}`);
  return JSON.parse(stdout);
}
