import { RlsdError } from "../errors.js";
import { closestName } from "../objectives/fields.js";

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${(value as Uint8Array).length})`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "string") return JSON.stringify(value.slice(0, 80));
  return typeof value === "object" || typeof value === "function" ? `a value of type ${typeof value}` : String(value);
}

export function invalid(expected: string, name: string, received: unknown): RlsdError {
  return new RlsdError(
    "ERR_RLSD_INVALID_ARGUMENT",
    `Expected ${expected} for ${name} but received ${describe(received)}.`,
  );
}

/** Unknown fields are errors that suggest the right one. */
export function checkFields(value: unknown, name: string, known: readonly string[]): void {
  if (typeof value !== "object" || value === null) throw invalid("an object", name, value);
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const suggestion = closestName(key, [...known]);
    const hint = suggestion === undefined ? `Fields: ${known.join(", ")}.` : `Did you mean ${suggestion}?`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Unknown field ${name}.${key}. ${hint}`);
  }
}

export interface Bounds {
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  readonly below?: number;
}

function boundsText(b: Bounds): string {
  const parts: string[] = [];
  if (b.min !== undefined) parts.push(`at least ${b.min}`);
  if (b.above !== undefined) parts.push(`above ${b.above}`);
  if (b.max !== undefined) parts.push(`at most ${b.max}`);
  if (b.below !== undefined) parts.push(`below ${b.below}`);
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`;
}

const within = (v: number, b: Bounds): boolean =>
  v >= (b.min ?? -Infinity) && v <= (b.max ?? Infinity) && v > (b.above ?? -Infinity) && v < (b.below ?? Infinity);

export function checkNumber(value: unknown, name: string, bounds: Bounds = {}): number {
  if (typeof value === "number" && Number.isFinite(value) && within(value, bounds)) return value;
  throw invalid(`a number${boundsText(bounds)}`, name, value);
}

export function checkInteger(value: unknown, name: string, bounds: Bounds = {}): number {
  if (Number.isSafeInteger(value) && within(value as number, bounds)) return value as number;
  throw invalid(`a whole number${boundsText(bounds)}`, name, value);
}

type TypedArray = Float32Array | Int32Array | Uint8Array;

/** A copy that nobody else holds; undefined stays undefined. */
export function ownCopy<T extends TypedArray>(
  value: T | undefined,
  type: { new (from: T): T; readonly name: string },
  name: string,
  ...lengths: number[]
): T | undefined {
  if (value === undefined) return undefined;
  if (value instanceof type && lengths.includes(value.length)) return new type(value);
  throw invalid(`a ${type.name} of ${[...new Set(lengths)].join(" or ")}`, name, value);
}
