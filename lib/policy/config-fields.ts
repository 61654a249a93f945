import { RlsdError } from "../errors.js";

/** Reads fields of a config.json; every complaint names the file and the field. */
export class Fields {
  constructor(
    private readonly json: Readonly<Record<string, unknown>>,
    private readonly file: string,
  ) {}

  fail(message: string): RlsdError {
    return new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", `${this.file}: ${message}`);
  }

  /** Absent and null are the same in Hugging Face's files. */
  get(name: string): unknown {
    return this.json[name] ?? undefined;
  }

  /** Whether the file says something of it, be it null. */
  has(name: string): boolean {
    return Object.hasOwn(this.json, name);
  }

  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.fail(`expected a number for ${name} but found ${JSON.stringify(value)}`);
  }

  positive(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (value > 0) return value;
    throw this.fail(`expected a number above 0 for ${name} but found ${value}`);
  }

  size(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (Number.isSafeInteger(value) && value >= 1 && value <= 0x7fffffff) return value;
    throw this.fail(`expected a whole number from 1 to 2^31 - 1 for ${name} but found ${value}`);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value === "boolean") return value;
    throw this.fail(`expected true or false for ${name} but found ${JSON.stringify(value)}`);
  }

  object(name: string): Fields | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) {
      throw this.fail(`expected an object for ${name} but found ${JSON.stringify(value)}`);
    }
    return new Fields(value as Record<string, unknown>, `${this.file}: ${name}`);
  }

  /** The field must be absent or one of `allowed`. */
  only(name: string, ...allowed: readonly unknown[]): void {
    const value = this.get(name);
    if (value === undefined || allowed.includes(value)) return;
    const expected = allowed.length === 0 ? "nothing" : allowed.map((a) => JSON.stringify(a)).join(" or ");
    throw this.fail(`${name} ${JSON.stringify(value)} is not supported: expected ${expected}`);
  }
}
