/** Markup that may go into a page as it is. Everything else is text, and is escaped. */
export class Html {
  constructor(readonly text: string) {}
}

type Part = Html | string | number | null | undefined | false | readonly Part[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** A control character's picture (U+2400 block), or the sign of one that has none. */
function picture(char: string): string {
  const code = char.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "\u2421" : "\ufffd";
}

/** Text as markup. No text turns the reading direction of a page or puts bytes into it that are no text. */
export const escapeHtml = (text: string): string =>
  text.replaceAll(/[&<>"']|(?![\n\t])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, (char) => ENTITIES[char] ?? picture(char));

function render(part: Part): string {
  if (part instanceof Html) return part.text;
  if (part === null || part === undefined || part === false) return "";
  if (typeof part === "object") return part.map(render).join("");
  return escapeHtml(String(part));
}

/** A page is written with this alone: what is put in is escaped unless it is Html itself. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + render(parts[i - 1]) + string));
}

/** Control characters as their pictures; a line break stays one and is shown besides. */
export const visible = (text: string): string =>
  text.replaceAll(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, (char) => (char === "\n" ? "\u21b5\n" : picture(char)));

/** What leaves no ink but a space: joiners, other spaces, selectors of variants. */
const INKLESS = /(?! )(?:[\p{Cf}\p{Z}]|\p{Variation_Selector})/gu;

/** A token's text where it stands alone, in a table: one that is no whole character, or spaces alone, must not be blank. */
export function tokenName(text: string): string {
  if (text === "") return "(part of a character)";
  const shown = visible(text.trim() === "" ? text.replaceAll(" ", "\u2423") : text).replaceAll("\n", "");
  return shown.replaceAll(INKLESS, (char) => `U+${char.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`);
}
