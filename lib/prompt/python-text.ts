/** A value inside a Jinja list or object: it carries the plain one. */
interface Inner {
  readonly type: string;
  readonly value: unknown;
}

/** With the space, which it does not, what Python's `repr` writes as an escape: control, format and unassigned characters, separators. */
const UNPRINTABLE = /[\p{C}\p{Z}]/u;

const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  const hex = (digits: number) => code.toString(16).padStart(digits, "0");
  if (code <= 0xff) return `\\x${hex(2)}`;
  return code <= 0xffff ? `\\u${hex(4)}` : `\\U${hex(8)}`;
}

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const written = [...text].map((c) => {
    if (c === quote) return `\\${c}`;
    return SHORT[c] ?? (c !== " " && UNPRINTABLE.test(c) ? escaped(c) : c);
  });
  return quote + written.join("") + quote;
}

function repr(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${(value as Inner[]).map((inner) => repr(inner.value)).join(", ")}]`;
  if (!(value instanceof Map)) return String(value);
  const entries = [...(value as Map<string, Inner>)].map(([name, inner]) => `${quoted(name)}: ${repr(inner.value)}`);
  return `{${entries.join(", ")}}`;
}

/** The one value of a Jinja list as Python's `str` writes it, which is what the filter `string` does there. */
export function pythonText([{ type, value }]: readonly [Inner]): string {
  if (typeof value === "string") return value;
  return type === "UndefinedValue" ? "" : repr(value);
}
