import type { RlsdError } from "../errors.js";
import type { Found } from "./read.js";
import { VALUE_TYPES, type ValueType } from "./types.js";

/** There are not as many bytes as the header goes on; perhaps the file has more. */
export class TooShort extends Error {}

type Plain = Exclude<ValueType, "array" | "string">;

/** Values of one list, at most. */
const MOST_VALUES = 1 << 24;
/** Bytes of a name. */
const MOST_NAME = 65535;

const TYPES = new Map<number, ValueType>(
  Object.entries(VALUE_TYPES).map(([name, { code }]) => [code, name as ValueType]),
);

const READERS: Readonly<Record<Plain, (bytes: Buffer, at: number) => number | boolean>> = {
  u8: (bytes, at) => bytes.readUInt8(at),
  i8: (bytes, at) => bytes.readInt8(at),
  u16: (bytes, at) => bytes.readUInt16LE(at),
  i16: (bytes, at) => bytes.readInt16LE(at),
  u32: (bytes, at) => bytes.readUInt32LE(at),
  i32: (bytes, at) => bytes.readInt32LE(at),
  f32: (bytes, at) => bytes.readFloatLE(at),
  bool: (bytes, at) => bytes.readUInt8(at) !== 0,
  u64: (bytes, at) => Number(bytes.readBigUInt64LE(at)),
  i64: (bytes, at) => Number(bytes.readBigInt64LE(at)),
  f64: (bytes, at) => bytes.readDoubleLE(at),
};

/** Reads the first bytes of a file one value after another. */
export class Cursor {
  at = 0;

  constructor(
    private readonly bytes: Buffer,
    /** Bytes of the file, which may be more. */
    private readonly size: number,
    private readonly fail: (message: string) => RlsdError,
  ) {}

  /** Where the next `count` bytes begin. */
  skip(count: number): number {
    const from = this.at;
    if (from + count > this.bytes.length) throw new TooShort();
    this.at += count;
    return from;
  }

  number(type: Exclude<Plain, "bool">): number {
    return this.#plain(type) as number;
  }

  /** How many of something follow, each of at least so many bytes. */
  count(what: string, each: number, size = this.size): number {
    const count = this.number("u64");
    if (count * each <= size - this.at) return count;
    throw this.fail(`its header claims ${count} ${what} but the file has ${this.size} bytes: damaged or truncated`);
  }

  /** A text of at most so many bytes. */
  text(most = MOST_NAME): string {
    const length = this.count("bytes of a text", 1);
    if (length > most) throw this.fail(`its header has a name of ${length} bytes: expected at most ${most}, damaged`);
    const from = this.skip(length);
    return this.bytes.toString("utf8", from, from + length);
  }

  value(key: string): Found {
    const type = this.#type(key);
    if (type !== "array") return this.#one(type);
    const of = this.#type(key);
    if (of === "array") throw this.fail(`${JSON.stringify(key)} is a list of lists: expected a list of values`);
    const count = this.count(`values of ${JSON.stringify(key)}`, VALUE_TYPES[of].bytes ?? 8);
    if (count > MOST_VALUES) {
      throw this.fail(`${JSON.stringify(key)} has ${count} values: expected at most ${MOST_VALUES}`);
    }
    const values: (string | number | boolean)[] = [];
    for (let i = 0; i < count; i++) values.push(this.#one(of));
    return values;
  }

  #type(key: string): ValueType {
    const code = this.number("u32");
    const type = TYPES.get(code);
    if (type === undefined) throw this.fail(`${JSON.stringify(key)} is of type ${code}, which there is not: damaged`);
    return type;
  }

  #one(type: Exclude<ValueType, "array">): string | number | boolean {
    return type === "string" ? this.text(this.size) : this.#plain(type);
  }

  #plain(type: Plain): number | boolean {
    return READERS[type](this.bytes, this.skip(VALUE_TYPES[type].bytes));
  }
}
