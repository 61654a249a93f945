import { lstatSync, readdirSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { messageOf } from "./errors.js";
import { closest } from "./suggest.js";

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOTDIR: "a part of the path is a file",
  EISDIR: "it is a folder",
  ELOOP: "a link on the path leads to itself",
  ENAMETOOLONG: "a name on the path is too long",
  EIO: "the device failed",
};

/** undefined: it cannot be listed. */
function namesIn(folder: string): string[] | undefined {
  try {
    return readdirSync(folder);
  } catch {
    return undefined;
  }
}

function isThere(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** What is missing on a path, and what has a name like it. */
function missing(path: string): string {
  const whole = resolve(path);
  if (isThere(whole)) return "it is a link to nothing";
  let first = whole;
  while (!isThere(dirname(first)) && dirname(first) !== first) first = dirname(first);
  const near = closest(basename(first), namesIn(dirname(first)) ?? []);
  const what = first === whole ? "it does not exist" : `there is no folder ${first}`;
  return near === undefined ? what : `${what}; ${dirname(first)} has ${near}`;
}

/** Why a file could not be read, in words. */
export function readFault(path: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null)?.code ?? "";
  if (code === "ENOENT") return missing(path);
  return Object.hasOwn(REASONS, code) ? REASONS[code]! : messageOf(error);
}
