import { existsSync } from "node:fs";
import { join } from "node:path";

/** A new folder for something that is done now, named so that folders sort by time: runs/2026-01-31T09-15-00-eval. */
export function newFolder(what: string): string {
  const name = join("runs", `${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}-${what}`);
  let folder = name;
  for (let i = 2; existsSync(folder); i++) folder = `${name}-${i}`;
  return folder;
}
