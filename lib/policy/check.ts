import { types } from "node:util";
import { invalid } from "../check.js";

type TypedArray = Float32Array | Int32Array | Uint8Array;

/** A copy that nobody else holds; undefined stays undefined. */
export function ownCopy<T extends TypedArray>(
  value: T | undefined,
  type: { new (from: T): T; readonly name: string },
  name: string,
  ...lengths: number[]
): T | undefined {
  if (value === undefined) return undefined;
  const isOfType = types.isTypedArray(value) && value[Symbol.toStringTag] === type.name; // of any realm
  if (isOfType && lengths.includes(value.length)) return new type(value);
  throw invalid(`a ${type.name} of ${[...new Set(lengths)].join(" or ")}`, name, value);
}
