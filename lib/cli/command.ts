import { type Bounds, boundsText, isNumber } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { exactJson } from "../exact-json.js";
import { visible } from "../report/html.js";

/** What `rlsd` returns to the shell. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** A run that stopped because it was asked to. Its message, if any, is what remains to be said. */
export class Interrupted extends Error {
  override readonly name = "AbortError";
}

const USAGE_CODES = new Set([
  "ERR_RLSD_CONFIG",
  "ERR_RLSD_USAGE",
  "ERR_RLSD_VERIFIER",
  "ERR_RLSD_VERIFIER_OPTION",
  "ERR_RLSD_VERIFIER_MODULE",
  "ERR_RLSD_ENVIRONMENT",
]);

/** The exit status an error stands for. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return EXIT.interrupted;
  if (error instanceof RlsdError && USAGE_CODES.has(error.code)) return EXIT.usage;
  return EXIT.failed;
}

/**
 * Text for a terminal: names and completions in it are not ours, so that control characters are shown and none obeyed.
 * Line breaks and tabs stay.
 */
export const readable = (text: string): string => text.replaceAll(/[^\n\t]+/g, visible);

/** JSON in one line in which every control character is escaped: what is read from it is the same. */
export const jsonLine = (value: unknown): string =>
  exactJson(value).replaceAll(
    /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

export function print(line: string): void {
  process.stdout.write(`${readable(line)}\n`);
}

/** Lines with colours of our own, in which what is not ours has been made readable. */
export function printColoured(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One JSON document a line, for machines. */
export function printJson(value: unknown): void {
  process.stdout.write(`${jsonLine(value)}\n`);
}

/** A line on stderr. */
export const tell = (text: string): void => void process.stderr.write(`${readable(text)}\n`);

/** One line for people on stderr; with `json` the same as an object on stdout. */
export function printError(error: unknown, json: boolean): void {
  if (error instanceof Interrupted) {
    if (error.message !== "") tell(`rlsd: ${error.message}`);
    return;
  }
  const message = messageOf(error);
  const code = error instanceof RlsdError ? error.code : "ERR_RLSD_UNEXPECTED";
  if (json) printJson({ kind: "error", error: { code, message } });
  const expected = error instanceof RlsdError;
  tell(`rlsd: ${message}`);
  // What nobody foresaw is a bug: its place is what a report of it needs.
  if (!expected && error instanceof Error && error.stack) tell(error.stack);
}

/** Collects a repeatable option such as `--set a=1 --set b=2`. */
export function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}

/** A flag as it is written: `--top-p` of topP. */
export const optionName = (flag: string): string =>
  `--${flag.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** An option's whole number; ERR_RLSD_USAGE where it is none, or less than `least`. */
export function wholeNumber(text: string, option: string, least = 1): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isSafeInteger(value) && value >= least) return value;
  const message = `Expected a whole number of at least ${least} for ${option} but received "${text}".`;
  throw new RlsdError("ERR_RLSD_USAGE", message);
}

/** An option's number; ERR_RLSD_USAGE where it is none, or out of bounds. */
export function decimal(text: string, option: string, bounds: Bounds): number {
  const value = Number(text);
  if (text.trim() !== "" && isNumber(value, bounds)) return value;
  const message = `Expected a number${boundsText(bounds)} for ${option} but received "${text}".`;
  throw new RlsdError("ERR_RLSD_USAGE", message);
}
