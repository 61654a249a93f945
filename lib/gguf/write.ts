import {
  ALIGNMENT,
  aligned,
  bytesOf,
  MAGIC,
  typeOf,
  VALUE_TYPES,
  VERSION,
  WRITTEN,
  type WrittenType,
} from "./types.js";

type Numeric = "u32" | "i32" | "f32";

/** A value of metadata, of the types that are written. */
export type Value =
  | { readonly type: Numeric; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "array"; readonly of: Numeric; readonly values: readonly number[] }
  | { readonly type: "array"; readonly of: "bool"; readonly values: readonly boolean[] }
  | { readonly type: "array"; readonly of: "string"; readonly values: readonly string[] };

export const u32 = (value: number): Value => ({ type: "u32", value });
export const f32 = (value: number): Value => ({ type: "f32", value });
export const bool = (value: boolean): Value => ({ type: "bool", value });
export const string = (value: string): Value => ({ type: "string", value });
export const strings = (values: readonly string[]): Value => ({ type: "array", of: "string", values });
export const i32s = (values: readonly number[]): Value => ({ type: "array", of: "i32", values });
export const f32s = (values: readonly number[]): Value => ({ type: "array", of: "f32", values });
export const bools = (values: readonly boolean[]): Value => ({ type: "array", of: "bool", values });

/** A tensor that is written. */
export interface TensorPlan {
  readonly name: string;
  /** Rows, then columns, as safetensors has them; the file has them the other way about. */
  readonly shape: readonly number[];
  readonly type: WrittenType;
}

export const planBytes = ({ shape, type }: TensorPlan): number =>
  bytesOf(
    typeOf(type),
    shape.reduce((a, b) => a * b, 1),
  );

/** Grows as it is written to. */
class Bytes {
  #buffer = Buffer.alloc(1 << 16);
  #length = 0;

  /** Where the next `count` bytes go. */
  #room(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.alloc(2 * this.#length);
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    return at;
  }

  number(type: Numeric | "u64" | "bool", value: number): void {
    const at = this.#room(VALUE_TYPES[type].bytes);
    if (type === "u64") this.#buffer.writeBigUInt64LE(BigInt(value), at);
    else if (type === "u32") this.#buffer.writeUInt32LE(value, at);
    else if (type === "i32") this.#buffer.writeInt32LE(value, at);
    else if (type === "f32") this.#buffer.writeFloatLE(value, at);
    else this.#buffer.writeUInt8(value, at);
  }

  bytes(content: Buffer): void {
    const at = this.#room(content.length);
    content.copy(this.#buffer, at);
  }

  text(value: string): void {
    const content = Buffer.from(value);
    this.number("u64", content.length);
    this.bytes(content);
  }

  value(value: Value): void {
    this.number("u32", VALUE_TYPES[value.type].code);
    const type = value.type === "array" ? value.of : value.type;
    if (value.type === "array") {
      this.number("u32", VALUE_TYPES[type].code);
      this.number("u64", value.values.length);
    }
    for (const one of value.type === "array" ? value.values : [value.value]) this.#plain(type, one);
  }

  #plain(type: Numeric | "bool" | "string", value: number | boolean | string): void {
    if (type === "string") this.text(value as string);
    else this.number(type, Number(value));
  }

  /** Filled up with zeros to a multiple of `to`. */
  padded(to: number): Buffer {
    this.#room(aligned(this.#length, to) - this.#length);
    return this.#buffer.subarray(0, this.#length);
  }
}

/** Everything before the tensors' data, which begin behind it, each at the next multiple of ALIGNMENT. */
export function encodeHeader(metadata: ReadonlyMap<string, Value>, tensors: readonly TensorPlan[]): Uint8Array {
  const out = new Bytes();
  out.bytes(Buffer.from(MAGIC));
  out.number("u32", VERSION);
  out.number("u64", tensors.length);
  out.number("u64", metadata.size);
  for (const [key, value] of metadata) {
    out.text(key);
    out.value(value);
  }
  let at = 0;
  for (const plan of tensors) {
    out.text(plan.name);
    out.number("u32", plan.shape.length);
    for (const size of plan.shape.toReversed()) out.number("u64", size);
    out.number("u32", WRITTEN[plan.type]);
    out.number("u64", at);
    at = aligned(at + planBytes(plan), ALIGNMENT);
  }
  return out.padded(ALIGNMENT);
}
