/** What a user's code returns, as data that travels. */

/** Of a value that JSON would lose. */
class Lost extends Error {}

/** "a Map", "an Error": by its class; null: a plain object, or a list. */
function classOf(value: object): string | null {
  const prototype: { readonly constructor?: { readonly name?: unknown } } | null = Object.getPrototypeOf(value);
  // Of whatever realm.
  if (Array.isArray(value) || prototype === null || Object.getPrototypeOf(prototype) === null) return null;
  const name = String(prototype.constructor?.name || "class without a name");
  return `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}

/** What of an object's class JSON holds nothing of: of a Map, a Promise, an Error. null: it has fields of its own, or is plain. */
export const emptyClassOf = (value: unknown): string | null =>
  typeof value === "object" && value !== null && Object.keys(value).length === 0 ? classOf(value) : null;

/**
 * A copy as JSON holds it, which whoever gave the value cannot change.
 *
 * @param exact numbers that JSON has not (NaN, Infinity) are refused too; else they become null
 * @throws where JSON cannot hold it: a circle, a BigInt, or an object of which it would leave nothing
 */
export function plainData(value: unknown, exact = false): unknown {
  const kept = (name: string, one: unknown) => {
    const where = name === "" ? "" : ` as "${name}"`;
    if (exact && typeof one === "number" && !Number.isFinite(one)) throw new Lost(`${one}${where}, which JSON has not`);
    const lost = emptyClassOf(one);
    if (lost !== null) throw new Lost(`${lost}${where}, of which JSON holds nothing`);
    return one;
  };
  return JSON.parse(JSON.stringify(value, kept) ?? "null");
}

/** What it is that JSON cannot hold, where that was named. */
export const lostBy = (error: unknown): string | undefined => (error instanceof Lost ? error.message : undefined);

/** What a tool returned, for the model to read; a number that is none is told by its name. */
export function toolResult(returned: unknown): unknown {
  if (typeof returned === "number" && !Number.isFinite(returned)) return String(returned);
  try {
    return plainData(returned);
  } catch (error) {
    const lost = lostBy(error);
    throw lost === undefined ? error : new Error(`the tool returned ${lost}`);
  }
}
