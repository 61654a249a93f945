import { visible } from "../report/html.js";

/** A paragraph in a line of at most `most` characters, without a byte that a terminal would obey. */
export function oneLine(text: string, most: number): string {
  const flat = visible(text.trim().replaceAll(/\s*\n\s*/g, " | "));
  // Not through the middle of a character that is two units.
  return flat.length > most ? `${flat.slice(0, most - 3).replace(/[\ud800-\udbff]$/, "")}...` : flat;
}
