import { invalid, mendFor } from "../check.js";
import { lengthOf, typedArrayName } from "../typed-array.js";

type TypedArray = Float32Array | Int32Array | Uint8Array;

/** A copy that nobody else holds; undefined stays undefined. */
export function ownCopy<T extends TypedArray>(
  value: T | undefined,
  type: { new (from: T): T; readonly name: string },
  name: string,
  ...lengths: number[]
): T | undefined {
  if (value === undefined) return undefined;
  if (typedArrayName(value) === type.name && lengths.includes(lengthOf(value))) return new type(value);
  throw invalid(`a ${type.name} of ${[...new Set(lengths)].join(" or ")}`, name, value, mendFor(value, type.name));
}
