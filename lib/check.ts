/** Checks of what a caller passes, and their words: one form of refusal for every room. */

import { types } from "node:util";
import { RlsdError } from "./errors.js";
import { closest, fold } from "./suggest.js";
import { isDetached, lengthOf, typedArrayName } from "./typed-array.js";

/** "Float32Array(7)", `"bf8" of type string`, "null": what came, for an error. */
export function describe(value: unknown): string {
  const typed = typedArrayName(value);
  if (typed !== undefined) {
    const gone = isDetached(value as ArrayBufferView) ? " whose memory was transferred away" : "";
    return `${typed}(${lengthOf(value as ArrayBufferView)})${gone}`;
  }
  if (ArrayBuffer.isView(value)) return "a DataView";
  if (types.isProxy(value)) return "a proxy";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "string") return `${JSON.stringify(value.slice(0, 80))} of type string`;
  const plain = value === null || value === undefined || typeof value === "number" || typeof value === "boolean";
  if (plain) return String(value);
  return types.isPromise(value) ? "a promise that was not awaited" : `a value of type ${typeof value}`;
}

/** The way from a list of another type, or from lists of lists, to the typed array that was expected. */
export function mendFor(value: unknown, type: string): string {
  if (types.isProxy(value)) return "Pass what it stands for.";
  const typed = typedArrayName(value);
  if (typed?.startsWith("Big") && type !== typed) return `Convert it with ${type}.from(..., Number).`;
  const nested = Array.isArray(value) && (Array.isArray(value[0]) || typedArrayName(value[0]) !== undefined);
  if (nested) return "Put its lists one after another, as packTokens does.";
  const list = Array.isArray(value) || (typed !== undefined && typed !== type);
  return list ? `Convert it with ${type}.from(...).` : "";
}

/** Characters of what somebody threw, which may hold a whole page: more would fill every log that tells of it. */
const MOST_TEXT = 65536;

/** Any value in words, one without a text of its own or whose text cannot be had too: whoever throws may throw anything. */
export function textOf(value: unknown): string {
  try {
    const text = String(value);
    return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}... (${text.length} characters)` : text;
  } catch {
    return "something without a text";
  }
}

/** As `value instanceof kind`, which throws of some proxies. */
export function isError<T extends Error>(value: unknown, kind: abstract new (...given: never[]) => T): value is T {
  try {
    return value instanceof kind;
  } catch {
    return false;
  }
}

/** A value as JSON, shortened to a line's part: for settings, which are JSON. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "function") return "a function";
  let text: string;
  try {
    if (typeof value === "bigint") return `${value}n`;
    // JSON has neither NaN nor Infinity, and would say null.
    text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value));
  } catch {
    text = textOf(value); // circular
  }
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** The error for an argument that came as `came`, in words; `mend` is a sentence on what to do. */
export function refusal(expected: string, name: string, came: string, mend = ""): RlsdError {
  const message = `Expected ${expected} for ${name} but received ${came}.${mend && ` ${mend}`}`;
  return new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
}

export function invalid(expected: string, name: string, received: unknown, mend = ""): RlsdError {
  return refusal(expected, name, describe(received), mend);
}

/**
 * The error for a name that is none of `known`, with the one most likely meant. `label`: "field options.topk".
 *
 * @param elsewhere names of other trainers, and what they are called here
 */
export function unknownName(
  label: string,
  name: string,
  known: Iterable<string>,
  elsewhere?: ReadonlyMap<string, string>,
): RlsdError {
  const near = elsewhere?.get(fold(name)) ?? closest(name, known);
  const hint = near === undefined ? `Fields: ${[...known].join(", ")}.` : `Did you mean ${near}?`;
  return new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Unknown ${label}. ${hint}`);
}

const isAborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")!.get!;

/** Whether it is an AbortSignal, not one in name: its own getter throws for what only has the prototype. */
function isSignal(value: unknown): boolean {
  try {
    isAborted.call(value);
    return true;
  } catch {
    return false;
  }
}

/** An AbortSignal, or none. */
export function checkSignal(value: unknown, name = "signal"): void {
  if (value !== undefined && !isSignal(value)) throw invalid("an AbortSignal", name, value);
}

/** An object as JSON has them: neither null nor a list. */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** An object with no field but the known ones, its own or inherited. `elsewhere` as of `unknownName`. */
export function checkObject(
  value: unknown,
  name: string,
  known: ReadonlySet<string>,
  elsewhere?: ReadonlyMap<string, string>,
): void {
  if (!isObject(value)) throw invalid("an object", name, value);
  for (const key in value) {
    if (!known.has(key)) throw unknownName(`field ${name}.${key}`, key, known, elsewhere);
  }
}

/** `min` and `max` are allowed, `above` and `below` are not. */
export interface Bounds {
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  readonly below?: number;
}

/** What float32 numbers are divided by: it and its reciprocal are normal float32 numbers. */
export const DIVISOR: Bounds = { min: 2 ** -126, max: 2 ** 126 };

/** " of at least 0 and below 1", or nothing. */
export function boundsText({ min, above, max, below }: Bounds): string {
  const parts: string[] = [];
  if (min !== undefined) parts.push(`of at least ${min}`);
  if (above !== undefined) parts.push(`above ${above}`);
  if (max !== undefined) parts.push(`at most ${max}`);
  if (below !== undefined) parts.push(`below ${below}`);
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`;
}

/** A finite number within the bounds. */
export const isNumber = (v: unknown, b: Bounds): v is number =>
  typeof v === "number" &&
  Number.isFinite(v) &&
  v >= (b.min ?? -Infinity) &&
  v <= (b.max ?? Infinity) &&
  v > (b.above ?? -Infinity) &&
  v < (b.below ?? Infinity);

export function checkNumber(value: unknown, name: string, bounds: Bounds = {}): number {
  if (isNumber(value, bounds)) return value;
  throw invalid(`a finite number${boundsText(bounds)}`, name, value);
}

export function checkInteger(value: unknown, name: string, bounds: Bounds = {}): number {
  if (Number.isSafeInteger(value) && isNumber(value, bounds)) return value;
  throw invalid(`a whole number${boundsText(bounds)}`, name, value);
}

/** What `body` makes of a list that may be none in all but name: a forged one, or one whose memory was given away, is refused. */
export function readable<T>(expected: string, name: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (isError(error, RlsdError)) throw error;
    throw refusal(expected, name, `one that cannot be read (${textOf(error)})`);
  }
}

/** A boolean, or absent. */
export function checkBoolean(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== "boolean") throw invalid("a boolean", name, value);
}

/** A function, or absent. */
export function checkFunction(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== "function") throw invalid("a function", name, value);
}

/** Paths, each not empty. */
export function checkPaths(value: unknown, name: string): void {
  if (!Array.isArray(value)) throw invalid("an array of paths", name, value);
  for (const [i, path] of value.entries()) checkPath(path, `${name}[${i}]`);
}

/** A path that is not empty; no system has one with a zero byte. */
export function checkPath(value: unknown, name: string): string {
  if (typeof value === "string" && value !== "" && !value.includes("\0")) return value;
  throw invalid("a path", name, value);
}

/** `"mean" or "none"`, `one of "a", "b", "c"`. */
export function wordsText(words: readonly string[]): string {
  const quoted = words.map((word) => `"${word}"`);
  return quoted.length <= 2 ? quoted.join(" or ") : `one of ${quoted.join(", ")}`;
}

/** One of the words. */
export function checkWord<const T extends string>(value: unknown, name: string, words: readonly T[]): T {
  if ((words as readonly unknown[]).includes(value)) return value as T;
  throw invalid(wordsText(words), name, value);
}
