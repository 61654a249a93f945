import { fileURLToPath } from "node:url";
import { isError, textOf } from "../check.js";

/** The first place in a file that a stack names; that of a syntax error names none. */
const PLACE = /(?:^|[\s(])((?:file:\/\/|\/|[A-Za-z]:\\)[^()\n]*?)(:\d+(?::\d+)?)\)?$/m;

/** Characters of a stack: ten places are fewer. */
const MOST_STACK = 4096;

/** Its end: what stands before the places is the message, of any length. */
function stackOf(error: unknown): string {
  try {
    return isError(error, Error) ? String(error.stack ?? "").slice(-MOST_STACK) : "";
  } catch {
    return "";
  }
}

/** An error of a module with the place that it comes from, where its stack tells one: "TypeError: ... (/my/verifier.mjs:3:9)". */
export function withPlace(error: unknown): string {
  const found = PLACE.exec(stackOf(error));
  if (found === null) return textOf(error);
  const [, file = "", line = ""] = found;
  return `${textOf(error)} (${file.startsWith("file:") ? fileURLToPath(file) : file}${line})`;
}
