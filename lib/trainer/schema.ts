import { type Bounds, boundsText, isNumber, isObject, show } from "../check.js";
import { RlsdError } from "../errors.js";
import { closest, didYouMean, fold } from "../suggest.js";
import { ourName } from "./foreign-names.js";

/**
 * Settings as a table: one entry says a setting's type, default, range and meaning, and the checker, the TypeScript type
 * and the printed list of settings all come from it.
 */
export interface Field<T> {
  readonly kind: "field";
  readonly expected: string;
  readonly doc: string;
  readonly fallback: T;
  readonly accepts: (value: unknown) => boolean;
}

interface Section {
  readonly [name: string]: Field<unknown> | Section;
}

/** The resolved settings a section describes. */
export type Settings<S> = {
  readonly [K in keyof S]: S[K] extends Field<infer T> ? T : Settings<S[K]>;
};

/** What a user may give of a section: any part of it, a setting's value whole. */
export type Given<S> = {
  readonly [K in keyof S]?: (S[K] extends Field<infer T> ? T : Given<S[K]>) | undefined;
};

function field<T>(fallback: T, expected: string, doc: string, accepts: (value: unknown) => boolean): Field<T> {
  return { kind: "field", fallback, expected, doc, accepts };
}

function rangeText(bounds: Bounds): string {
  const { min, max } = bounds;
  return min !== undefined && max !== undefined ? ` from ${min} to ${max}` : boundsText(bounds);
}

export function number(fallback: number, doc: string, range: Bounds = {}): Field<number> {
  return field(fallback, `a number${rangeText(range)}`, doc, (v) => isNumber(v, range));
}

export function integer(fallback: number, doc: string, range: Bounds = { min: 0 }): Field<number> {
  const accepts = (v: unknown) => Number.isSafeInteger(v) && isNumber(v, range);
  return field(fallback, `an integer${rangeText(range)}`, doc, accepts);
}

export function flag(fallback: boolean, doc: string): Field<boolean> {
  return field(fallback, "true or false", doc, (v) => typeof v === "boolean");
}

export function text(fallback: string, doc: string): Field<string> {
  return field(fallback, "a text", doc, (v) => typeof v === "string");
}

export function filledText(): Field<string> {
  return field("", "a text that is not empty", "", (v) => typeof v === "string" && v !== "");
}

export function oneOf<const T extends string>(choices: readonly T[], fallback: NoInfer<T>, doc: string): Field<T> {
  const accepts = (v: unknown) => choices.some((choice) => choice === v);
  return field<T>(fallback, `one of ${choices.join(", ")}`, doc, accepts);
}

export function listOf<T>(item: Field<T>, fallback: readonly T[], doc: string): Field<readonly T[]> {
  const accepts = (v: unknown) => Array.isArray(v) && v.every(item.accepts);
  return field(fallback, `a list, each ${item.expected}`, doc, accepts);
}

export function nullable<T>(inner: Field<T>, doc: string, fallback: T | null = null): Field<T | null> {
  return field<T | null>(fallback, `${inner.expected}, or null`, doc, (v) => v === null || inner.accepts(v));
}

/** An object whose keys another room checks. */
export function open<T extends object>(doc: string): Field<Partial<T>> {
  return field<Partial<T>>({}, "an object", doc, isObject);
}

/** A value that another room checks. */
export function anything<T>(fallback: T, expected: string, doc: string): Field<T> {
  return field(fallback, expected, doc, (v) => v !== undefined);
}

function isField(entry: Field<unknown> | Section): entry is Field<unknown> {
  return entry.kind === "field";
}

/** Whether a setting is any text, or null: not one of several. */
export const isText = (setting: Field<unknown> | undefined): boolean =>
  setting !== undefined && ["a text", "a text, or null"].includes(setting.expected);

/** The setting of a path; undefined: a section, or none. */
export function fieldAt(section: Section, [name, ...rest]: readonly string[]): Field<unknown> | undefined {
  const entry = name !== undefined && Object.hasOwn(section, name) ? section[name] : undefined;
  if (entry === undefined) return undefined;
  if (isField(entry)) return rest.length === 0 ? entry : undefined;
  return fieldAt(entry, rest);
}

/** Paths of the settings that end in a name, however it is written. */
function pathsTo(section: Section, name: string, path = ""): string[] {
  return Object.entries(section).flatMap(([own, entry]) => {
    if (!isField(entry)) return pathsTo(entry, name, `${path}${own}.`);
    return fold(own) === fold(name) ? [`${path}${own}`] : [];
  });
}

/** What was meant by a name that a section has not: one near it there, the same elsewhere, or what others call it. */
function meant(root: Section, section: Section, prefix: string, name: string): string[] {
  const near = closest(name, Object.keys(section));
  const ours = ourName(`${prefix}${name}`);
  const known = ours !== undefined && Object.hasOwn(root, ours.split(".")[0]!) ? [ours] : [];
  const elsewhere = new Set([...pathsTo(root, name.slice(name.lastIndexOf(".") + 1)), ...known]);
  const here = near !== undefined && (fold(near) === fold(name) || elsewhere.size === 0);
  return here ? [`${prefix}${near}`] : [...elsewhere];
}

/** Names that an error says besides the first: a file of another trainer has tens of them. */
const MOST_NAMED = 12;

/** An object that is nowhere here is a section of another trainer's: what is in it counts. */
function unknownIn(value: unknown, name: string, isKnown: (name: string) => boolean): string[] {
  if (!isObject(value) || isKnown(name) || name.split(".").length > MOST_NAMED) return [name];
  const inner = Object.entries(value).flatMap(([own, item]) => unknownIn(item, `${name}.${own}`, isKnown));
  return inner.length === 0 ? [name] : inner;
}

/** Throws for all names of what was given that a section has not. */
function requireNames(section: Section, given: Readonly<Record<string, unknown>>, prefix: string, root: Section): void {
  const likely = (name: string) => meant(root, section, prefix, name).map((one) => `"${one}"`);
  const [first, ...others] = Object.entries(given)
    .filter(([name]) => !Object.hasOwn(section, name))
    .flatMap(([name, value]) => unknownIn(value, name, (one) => likely(one).length > 0));
  if (first === undefined) return;
  const hint = likely(first);
  const did = hint.length === 0 ? didYouMean(first, Object.keys(section)) : ` Did you mean ${hint.join(" or ")}?`;
  const named = others.slice(0, MOST_NAMED).map((name) => {
    const ours = likely(name);
    return `"${prefix}${name}"${ours.length === 0 ? "" : ` (${ours.join(" or ")}?)`}`;
  });
  if (others.length > named.length) named.push(`${others.length - named.length} more`);
  const besides = named.length === 0 ? "" : ` Nor ${named.join(", ")}.`;
  throw new RlsdError("ERR_RLSD_CONFIG", `There is no setting "${prefix}${first}".${did}${besides}`);
}

function resolveSection(section: Section, given: unknown, path: string, root: Section): Record<string, unknown> {
  if (!isObject(given)) {
    throw new RlsdError("ERR_RLSD_CONFIG", `Expected an object for "${path}" but received ${show(given)}.`);
  }
  const prefix = path === "" ? "" : `${path}.`;
  const names = Object.keys(section);
  requireNames(section, given, prefix, root);
  const out: Record<string, unknown> = {};
  for (const name of names) {
    const entry = section[name]!;
    const value = given[name];
    if (!isField(entry)) {
      out[name] = resolveSection(entry, value ?? {}, `${prefix}${name}`, root);
    } else if (value === undefined) {
      out[name] = entry.fallback;
    } else if (entry.accepts(value)) {
      out[name] = value;
    } else {
      const message = `Expected ${entry.expected} for "${prefix}${name}" but received ${show(value)}.`;
      throw new RlsdError("ERR_RLSD_CONFIG", message);
    }
  }
  return out;
}

/** Checks what was given against the table and fills in the defaults. Nothing unknown passes. */
export function resolveSettings<const S extends Section>(section: S, given: unknown): Settings<S> {
  return resolveSection(section, given, "", section) as Settings<S>;
}

/** Of settings that were given for a whole table, those that a part of it has. */
export function partOf(section: Section, given: unknown): unknown {
  if (!isObject(given)) return given;
  const known = Object.entries(given).filter(([name]) => Object.hasOwn(section, name));
  return Object.fromEntries(
    known.map(([name, value]) => {
      const entry = section[name]!;
      return [name, isField(entry) ? value : partOf(entry, value)];
    }),
  );
}

/** One line a setting: name, default, what is expected, meaning. */
export function describeSettings(section: Section, prefix = ""): { name: string; default: string; doc: string }[] {
  return Object.entries(section).flatMap(([name, entry]) =>
    isField(entry)
      ? [{ name: `${prefix}${name}`, default: show(entry.fallback), doc: `${entry.doc} (${entry.expected})` }]
      : describeSettings(entry, `${prefix}${name}.`),
  );
}
