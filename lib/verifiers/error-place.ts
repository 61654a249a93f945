import { fileURLToPath } from "node:url";
import { textOf } from "../check.js";

/** The first place in a file that a stack names; that of a syntax error names none. */
const PLACE = /(?:^|[\s(])((?:file:\/\/|\/|[A-Za-z]:\\)[^()\n]*?)(:\d+(?::\d+)?)\)?$/m;

/** An error of a module with the place that it comes from, where its stack tells one: "TypeError: ... (/my/verifier.mjs:3:9)". */
export function withPlace(error: unknown): string {
  const found = error instanceof Error ? PLACE.exec(error.stack ?? "") : null;
  if (found === null) return textOf(error);
  const [, file = "", line = ""] = found;
  return `${String(error)} (${file.startsWith("file:") ? fileURLToPath(file) : file}${line})`;
}
