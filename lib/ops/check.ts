import { types } from "node:util";
import { describe, mendFor, refusal } from "../check.js";
import type { RlsdError } from "../errors.js";
import { isTensor } from "../tensor/tensor.js";
import { bufferOf, lengthOf, typedArrayName } from "../typed-array.js";

/** What came, where it may be a tensor. */
const describeAny = (value: unknown): string =>
  isTensor(value)
    ? `a tensor on ${value.device} of shape [${value.shape.join(", ")}] and dtype ${value.dtype}`
    : describe(value);

/** As `invalid` of every room, where a tensor may have come. */
export function invalid(expected: string, name: string, received: unknown, mend = ""): RlsdError {
  return refusal(expected, name, describeAny(received), mend);
}

export const isF32 = (value: unknown): value is Float32Array => typedArrayName(value) === "Float32Array";
export const isI32 = (value: unknown): value is Int32Array => typedArrayName(value) === "Int32Array";

/**
 * An index or a mask that another thread may change is copied: what native code checks is what it uses. All else passes
 * as it is.
 */
export function unshared<T>(value: T): T {
  const name = typedArrayName(value);
  if (name !== "Int32Array" && name !== "Uint8Array") return value;
  if (!types.isSharedArrayBuffer(bufferOf(value as Int32Array | Uint8Array))) return value;
  return (name === "Int32Array" ? new Int32Array(value as Int32Array) : new Uint8Array(value as Uint8Array)) as T;
}

/** A Float32Array of `length`, or undefined when absent is allowed. */
export function checkF32(value: unknown, name: string, length: number): Float32Array {
  if (isF32(value) && lengthOf(value) === length) return value;
  throw invalid(`a Float32Array of ${length}`, name, value, mendFor(value, "Float32Array"));
}

export function checkI32(value: unknown, name: string, length: number): Int32Array {
  if (isI32(value) && lengthOf(value) === length) return value;
  throw invalid(`an Int32Array of ${length}`, name, value, mendFor(value, "Int32Array"));
}

export function checkU8(value: unknown, name: string, length: number): Uint8Array {
  if (typedArrayName(value) === "Uint8Array" && lengthOf(value as Uint8Array) === length) return value as Uint8Array;
  throw invalid(`a Uint8Array of ${length}`, name, value, mendFor(value, "Uint8Array"));
}

export function checkPositiveInteger(value: unknown, name: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw invalid("a positive integer", name, value);
}

export function checkFinite(value: unknown, name: string): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw invalid("a finite number", name, value);
}
