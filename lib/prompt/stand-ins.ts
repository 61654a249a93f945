import { exactJson, mapIntegers } from "../exact-json.js";

type Variables = Readonly<Record<string, unknown>>;

/**
 * Variables for a template, in which the library knows integers up to 2^53 alone: one of those stands in the place of each
 * BigInt, with its sign, and `restored` puts the digits of that into the text. Stand-ins are near 2^53 and nowhere in
 * `source` or the variables.
 */
export function withStandIns(
  given: Variables,
  source: string,
): { readonly variables: Variables; readonly restored: (text: string) => string } {
  const standIns = new Map<bigint, number>();
  let next = Number.MAX_SAFE_INTEGER;
  let written: string | undefined;
  const standInOf = (integer: bigint): number => {
    written ??= exactJson(given) + source;
    while (written.includes(String(next))) next--;
    const standIn = standIns.get(integer) ?? (integer < 0n ? -next-- : next--);
    standIns.set(integer, standIn);
    return standIn;
  };
  const variables = mapIntegers(given, standInOf);
  const restored = (text: string): string =>
    [...standIns].reduce((out, [integer, standIn]) => out.replaceAll(String(standIn), String(integer)), text);
  return { variables, restored };
}
