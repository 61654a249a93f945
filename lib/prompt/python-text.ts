/** A value inside a Jinja list or object: it carries the plain one. */
export interface Inner {
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

/** A float: with a point, or with an exponent of at least two digits from 1e16 on and below 1e-4. */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").toLowerCase();
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  return Number.isInteger(value) ? `${Object.is(value, -0) ? "-0" : value}.0` : String(value);
}

function repr({ type, value }: Inner): string {
  if (typeof value === "string") return quoted(value);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  // Integers beyond 2^53 are no numbers here (lib/prompt/stand-ins.ts): this one was written as a float.
  if (typeof value === "number" && (type === "FloatValue" || !Number.isSafeInteger(value))) return pythonFloat(value);
  if (Array.isArray(value)) return `[${(value as Inner[]).map(repr).join(", ")}]`;
  if (!(value instanceof Map)) return String(value);
  const entries = [...(value as Map<string, Inner>)].map(([name, inner]) => `${quoted(name)}: ${repr(inner)}`);
  return `{${entries.join(", ")}}`;
}

/** A value as Python's `str` writes it, which is what a template prints. */
export function pythonText(given: Inner): string {
  const { type, value } = given;
  if (typeof value === "string") return value;
  return type === "UndefinedValue" ? "" : repr(given);
}

/** What Python's `strip` takes for white space; JavaScript's has U+FEFF too, and not all of these. */
const SPACE =
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";

/** `strip`, `lstrip` and `rstrip`: any of these characters, or white space, at the sides that are named. */
export function stripped(text: string, characters = SPACE, sides: "both" | "left" | "right" = "both"): string {
  let [from, to] = [0, text.length];
  while (sides !== "right" && from < to && characters.includes(text[from]!)) from++;
  while (sides !== "left" && from < to && characters.includes(text[to - 1]!)) to--;
  return text.slice(from, to);
}
