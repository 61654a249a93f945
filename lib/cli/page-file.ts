import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { RlsdError } from "../errors.js";

/** Where a page cannot be written, that is better known before anything is read or scored. `what`: who names the file. */
export async function checkPage(what: string, file: string | undefined): Promise<void> {
  if (file === undefined) return;
  const isFolder = async (path: string) => (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  const folder = dirname(resolve(file));
  const why = !(await isFolder(folder))
    ? `there is no folder ${folder}: make it, or name another file`
    : (await isFolder(resolve(file)))
      ? "that is a folder: name a file in it"
      : undefined;
  if (why !== undefined) throw new RlsdError("ERR_RLSD_WRITE", `cannot write ${what} ${file}: ${why}.`);
}
