import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../..");

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
  const args = ["--import", join(root, "scripts/ts-register.mjs"), join(root, "test/support", name), ...rest];
  const env = { ...process.env, ...variables };
  const ended = await promisify(execFile)(process.execPath, args, { env }).catch((error) => error);
  const { stdout, stderr, signal } = ended as { stdout: string; stderr: string; signal?: string | null };
  const isWrong = stdout === "" || (signal ?? null) !== null || /cuda emulation:/.test(stderr);
  if (isWrong) throw new Error(`${name} ended (${signal}) with: ${stderr}`);
  return JSON.parse(stdout);
}
