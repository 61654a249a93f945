/** JSON as Python's `json.dumps` writes it, which is what `tojson` is where chat templates are made (transformers). */
import { type Inner, pythonFloat } from "./python-text.js";

/** Parameters of `tojson` behind the value, in their order there. */
export const JSON_PARAMETERS = ["ensure_ascii", "indent", "separators", "sort_keys"];

interface JsonStyle {
  /** Beyond ASCII nothing is written as it is. */
  readonly ascii: boolean;
  /** Of one level; undefined: all of it is one line. */
  readonly indent: string | undefined;
  readonly betweenItems: string;
  readonly behindKey: string;
  readonly sorted: boolean;
}

const wrong = (name: string, expected: string): Error => new Error(`tojson: expected ${expected} for ${name}`);

function flagOf(given: ReadonlyMap<string, Inner>, name: string): boolean {
  const value = given.get(name)?.value ?? false;
  if (typeof value === "boolean") return value;
  throw wrong(name, "true or false");
}

function indentOf(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  if (typeof value === "number" && Number.isInteger(value)) return " ".repeat(Math.min(100, Math.max(0, value)));
  throw wrong("indent", "an integer, a text or none");
}

function separatorsOf(value: unknown): readonly string[] | undefined {
  if (value === undefined || value === null) return undefined;
  const texts = Array.isArray(value) ? value.map((one: Inner) => one.value) : [];
  if (texts.length === 2 && texts.every((text) => typeof text === "string")) return texts;
  throw wrong("separators", "two texts or none");
}

function styleOf(given: ReadonlyMap<string, Inner>): JsonStyle {
  const unknown = [...given.keys()].find((name) => !JSON_PARAMETERS.includes(name));
  if (unknown !== undefined) throw new Error(`tojson has no parameter ${unknown}`);
  const indent = indentOf(given.get("indent")?.value);
  const separators = separatorsOf(given.get("separators")?.value);
  const [betweenItems, behindKey] = separators ?? [indent === undefined ? ", " : ",", ": "];
  return {
    ascii: flagOf(given, "ensure_ascii"),
    indent,
    betweenItems: betweenItems!,
    behindKey: behindKey!,
    sorted: flagOf(given, "sort_keys"),
  };
}

function quoted(text: string, { ascii }: JsonStyle): string {
  const json = JSON.stringify(text);
  if (!ascii) return json;
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** In the order of code points. */
const byName = ([a]: readonly [string, Inner], [b]: readonly [string, Inner]): number =>
  Buffer.compare(Buffer.from(a), Buffer.from(b));

function written({ type, value }: Inner, style: JsonStyle, depth: number): string {
  const container = (open: string, items: readonly string[], close: string) => {
    if (items.length === 0 || style.indent === undefined) return open + items.join(style.betweenItems) + close;
    const line = `\n${style.indent.repeat(depth)}`;
    const inner = line + style.indent;
    return open + inner + items.join(style.betweenItems + inner) + line + close;
  };
  const inner = (item: Inner) => written(item, style, depth + 1);
  if (typeof value === "string") return quoted(value, style);
  if (value === null || value === undefined) return "null";
  if (typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (type !== "FloatValue" && Number.isSafeInteger(value)) return String(value);
    return Number.isFinite(value) ? pythonFloat(value) : String(value);
  }
  if (Array.isArray(value)) return container("[", (value as Inner[]).map(inner), "]");
  if (!(value instanceof Map)) throw new Error(`Cannot convert to JSON: ${type}`);
  const entries = [...(value as Map<string, Inner>)];
  if (style.sorted) entries.sort(byName);
  const items = entries.map(([name, item]) => quoted(name, style) + style.behindKey + inner(item));
  return container("{", items, "}");
}

/** What `value | tojson(...)` writes; `given`: its parameters by their names. */
export function pythonJson(value: Inner, given: ReadonlyMap<string, Inner>): string {
  return written(value, styleOf(given), 0);
}
