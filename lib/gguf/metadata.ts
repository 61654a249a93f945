import { RlsdError } from "../errors.js";
import type { Found } from "./read.js";

/** The shortest decimal number that float32 rounds to the same: what was written, before it became float32. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

/** The shortest decimal number that is the same but for float32's rounding of two factors. */
export function near(value: number): number {
  for (let digits = 1; digits < 8; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.abs(short / value - 1) < 2e-7) return short;
  }
  return value;
}

/** Reads values of metadata; every complaint names the file and the key. */
export class Metadata {
  constructor(
    readonly values: ReadonlyMap<string, Found>,
    readonly file: string,
    /** Put before keys. */
    private readonly prefix = "",
  ) {}

  under(prefix: string): Metadata {
    return new Metadata(this.values, this.file, `${prefix}.`);
  }

  get(key: string): Found | undefined {
    return this.values.get(this.prefix + key);
  }

  fail(key: string, expected: string): RlsdError {
    const found = this.get(key);
    const came = Array.isArray(found) ? `a list of ${found.length}` : JSON.stringify(found);
    const message = `${this.file}: expected ${expected} for ${this.prefix}${key} but found ${came ?? "nothing"}`;
    return new RlsdError("ERR_RLSD_MODEL_FILE", message);
  }

  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value)) return shortest(value);
    throw this.fail(key, "a number");
  }

  /** A whole number of something. */
  whole(key: string, most: number, fallback?: number): number {
    const value = this.number(key, fallback);
    if (Number.isSafeInteger(value) && value >= 1 && value <= most) return value;
    throw this.fail(key, `a whole number from 1 to ${most}`);
  }

  optional(key: string): number | undefined {
    return this.get(key) === undefined ? undefined : this.number(key);
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.fail(key, "true or false");
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw this.fail(key, "a text");
  }

  texts(key: string): readonly string[] | undefined {
    return this.#list(key, "string", "texts") as readonly string[] | undefined;
  }

  numbers(key: string): readonly number[] | undefined {
    return this.#list(key, "number", "numbers") as readonly number[] | undefined;
  }

  #list(key: string, type: string, what: string): unknown {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((one) => typeof one === type)) return value;
    throw this.fail(key, `a list of ${what}`);
  }
}
