/** JSON whose integers beyond 2^53, which no number holds, are BigInt. */

const STRING_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** A text that is not in `text`. */
function markFor(text: string): string {
  let mark = "\ue000";
  while (text.includes(mark)) mark += "\ue000";
  return mark;
}

/** As JSON.parse, but that an integer beyond 2^53 is a BigInt. */
export function parseExact(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  // What is wrong with it is said of the text as it is.
  JSON.parse(text);
  const mark = markFor(text);
  const marked = text.replace(STRING_OR_NUMBER, (token) =>
    /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"${mark}${token}"` : token,
  );
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}

/** As JSON.stringify, but that a BigInt is the number that it is. */
export function exactJson(value: unknown): string {
  let any = false;
  const plain = JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner !== "bigint") return inner;
    any = true;
    return inner.toString();
  });
  if (!any) return plain;
  const mark = markFor(plain);
  const marked = JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? `${mark}${inner}` : inner));
  return marked.replace(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

export const isPlain = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** A value of lists and objects with `change` of each BigInt in it; the same value where there is none. */
export function mapIntegers<T>(value: T, change: (integer: bigint) => unknown): T;
export function mapIntegers(value: unknown, change: (integer: bigint) => unknown): unknown {
  if (typeof value === "bigint") return change(value);
  if (Array.isArray(value)) {
    const items = value.map((item) => mapIntegers(item, change));
    return items.some((item, i) => !Object.is(item, value[i])) ? items : value;
  }
  if (!isPlain(value)) return value;
  const entries = Object.entries(value).map(([name, inner]) => [name, mapIntegers(inner, change)] as const);
  return entries.some(([name, inner]) => !Object.is(inner, value[name])) ? Object.fromEntries(entries) : value;
}

/** That value with the digits of each BigInt as a text. */
export const withTexts = <T>(value: T): T => mapIntegers(value, String);
