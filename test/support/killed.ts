import { spawn } from "node:child_process";

/** Runs node until it ends or, `delay` milliseconds after it first wrote to stdout, is killed. */
export function runOrKill(
  args: readonly string[],
  delay: number,
  o: { readonly cwd?: string } = {},
): Promise<"finished" | "killed"> {
  const child = spawn(process.execPath, args, o);
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  let timer: NodeJS.Timeout | undefined;
  child.stdout.once("data", () => {
    if (delay < Number.POSITIVE_INFINITY) timer = setTimeout(() => child.kill("SIGKILL"), delay);
  });
  return new Promise((resolve, reject) => {
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      if (signal === "SIGKILL") resolve("killed");
      else if (code === 0) resolve("finished");
      else reject(new Error(errors));
    });
  });
}
