/**
 * Options of a verifier: plain JSON, checked once when the verifier is made. A table of readers per verifier says what is
 * allowed, so that a misspelt option is an error that names the right one, never a silent default.
 */
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import { didYouMean } from "../suggest.js";

/** Returns the checked value, or what is wrong with it. `value` is undefined where the option is absent. */
export type Reader<T> = (value: unknown) => { readonly ok: T } | { readonly expected: string };

export type Readers = Readonly<Record<string, Reader<unknown>>>;
export type Read<R extends Readers> = { readonly [K in keyof R]: R[K] extends Reader<infer T> ? T : never };

function reader<T>(test: (value: unknown) => value is T, expected: string, fallback?: T): Reader<T> {
  return (value) => {
    if (value === undefined && fallback !== undefined) return { ok: fallback };
    return test(value) ? { ok: value } : { expected };
  };
}

export const text = (fallback?: string): Reader<string> =>
  reader((v): v is string => typeof v === "string" && v !== "", "a non-empty string", fallback);

export const flag = (fallback: boolean): Reader<boolean> =>
  reader((v): v is boolean => typeof v === "boolean", "true or false", fallback);

export function number(fallback: number | undefined, min = Number.NEGATIVE_INFINITY, max = Infinity): Reader<number> {
  const range = `${min === Number.NEGATIVE_INFINITY ? "" : ` of at least ${min}`}${max === Infinity ? "" : ` and at most ${max}`}`;
  const test = (v: unknown): v is number => typeof v === "number" && Number.isFinite(v) && v >= min && v <= max;
  return reader(test, `a finite number${range}`, fallback);
}

export function integer(fallback: number | undefined, min = 0, max = Number.MAX_SAFE_INTEGER): Reader<number> {
  const test = (v: unknown): v is number => Number.isSafeInteger(v) && Number(v) >= min && Number(v) <= max;
  return reader(test, `an integer from ${min} to ${max === Number.MAX_SAFE_INTEGER ? "2^53 - 1" : max}`, fallback);
}

export function oneOf<const T extends string | number | null>(choices: readonly T[], fallback?: T): Reader<T> {
  const test = (v: unknown): v is T => choices.some((choice) => choice === v);
  return reader(test, `one of ${choices.map((choice) => JSON.stringify(choice)).join(", ")}`, fallback);
}

export function listOf<T>(item: Reader<T>): Reader<readonly T[]> {
  return (value) => {
    if (!Array.isArray(value) || value.length === 0) return { expected: "a non-empty list" };
    const items: T[] = [];
    for (const [i, one] of value.entries()) {
      const read = item(one);
      if ("expected" in read) return { expected: `${read.expected} as item ${i}` };
      items.push(read.ok);
    }
    return { ok: items };
  };
}

export function optional<T>(inner: Reader<T>): Reader<T | undefined> {
  return (value) => (value === undefined ? { ok: undefined } : inner(value));
}

export const anything: Reader<unknown> = (value) => (value === undefined ? { expected: "a value" } : { ok: value });

/** Whose options are read, for messages, and the code of an error in them. */
export interface Whose {
  readonly what: string;
  readonly code: `ERR_RLSD_${string}`;
}

const VERIFIER: Whose = { what: "verifier", code: "ERR_RLSD_VERIFIER_OPTION" };

/** Reads `given` by `readers`; `type` is the verifier's name, for messages. */
export function readOptions<const R extends Readers>(
  type: string,
  given: Readonly<Record<string, unknown>>,
  readers: R,
  { what, code }: Whose = VERIFIER,
): Read<R> {
  const names = Object.keys(readers);
  for (const name of Object.keys(given)) {
    if (name !== "type" && !names.includes(name)) {
      const hint = names.length === 0 ? " It takes none." : didYouMean(name, names);
      throw new RlsdError(code, `The ${what} "${type}" has no option "${name}".${hint}`);
    }
  }
  const result: Record<string, unknown> = {};
  for (const [name, read] of Object.entries(readers)) {
    const outcome = read(given[name]);
    if ("expected" in outcome) {
      throw new RlsdError(
        code,
        `Expected ${outcome.expected} for option "${name}" of the ${what} "${type}" but received ${show(given[name])}.`,
      );
    }
    result[name] = outcome.ok;
  }
  return Object.freeze(result) as Read<R>;
}

/** The error of an option that the others leave without effect; `where`: how. */
export function idleOption(type: string, name: string, where: string): RlsdError {
  const message = `Option "${name}" of the verifier "${type}" has no effect ${where}: leave it out.`;
  return new RlsdError("ERR_RLSD_VERIFIER_OPTION", message);
}

/** The error of a row that cannot be judged: which field, what was expected, what came. The caller adds which row. */
export function rowError(type: string, field: string, expected: string, found: unknown): RlsdError {
  return new RlsdError(
    "ERR_RLSD_VERIFIER_ROW",
    `The verifier "${type}" needs field "${field}" to be ${expected} but found ${show(found)}.`,
  );
}
