/** Patterns of file names, as a shell has them: `*`, `?`, `[a-z]`, `[!a]`, `{a,b}` within a name, and a name `**` for any folders. */
import { lstat, readdir, stat } from "node:fs/promises";
import { join, parse, sep } from "node:path";
import { RlsdError } from "../../errors.js";

/** One place of a name; "any": as many characters as there are. */
type Token = "any" | ((character: string) => boolean);

/** Alternatives that the braces of one name may stand for. */
const MOST_ALTERNATIVES = 1000;

/** Between names; Windows takes both. */
const SEPARATOR = sep === "/" ? "/" : /[\\/]/;

export const isPattern = (path: string): boolean => /[*?[{]/.test(path);

/** `a{b,c}d` as abd and acd; braces without a comma are characters. */
function alternatives(name: string): string[] {
  let depth = 0;
  let open = -1;
  let cuts: number[] = [];
  for (const [i, c] of [...name].entries()) {
    if (c === "{" && depth++ === 0) [open, cuts] = [i, []];
    else if (c === "," && depth === 1) cuts.push(i);
    else if (c === "}" && depth > 0 && --depth === 0 && cuts.length > 0) return expanded([...name], [open, ...cuts, i]);
  }
  return [name];
}

/** The alternatives between these marks, with what stands before and behind them. */
function expanded(name: readonly string[], marks: readonly number[]): string[] {
  const text = (from: number, to?: number) => name.slice(from, to).join("");
  const behind = alternatives(text(marks.at(-1)! + 1));
  const inside = marks.slice(1).flatMap((end, i) => alternatives(text(marks[i]! + 1, end)));
  if (inside.length * behind.length > MOST_ALTERNATIVES) {
    throw new RlsdError("ERR_RLSD_DATA", `${text(0)}: its braces stand for more than ${MOST_ALTERNATIVES} names.`);
  }
  return inside.flatMap((one) => behind.map((rest) => text(0, marks[0]) + one + rest));
}

/** What `[...]` accepts, and where it ends; undefined: the bracket is a character. */
function characterClass(name: readonly string[], start: number): { test: Token; end: number } | undefined {
  const negated = name[start + 1] === "!" || name[start + 1] === "^";
  const first = start + (negated ? 2 : 1);
  // A "]" that comes first is one of the characters.
  const end = name.indexOf("]", first + 1);
  if (end < 0) return undefined;
  const ranges: (readonly [string, string])[] = [];
  for (let i = first; i < end; i++) {
    const ranged = name[i + 1] === "-" && i + 2 < end;
    ranges.push([name[i]!, name[ranged ? i + 2 : i]!]);
    if (ranged) i += 2;
  }
  const at = (c: string) => c.codePointAt(0)!;
  const test = (c: string) => ranges.some(([from, to]) => at(from) <= at(c) && at(c) <= at(to)) !== negated;
  return { test, end };
}

function tokensOf(pattern: string): Token[] {
  const name = [...pattern];
  const tokens: Token[] = [];
  for (let i = 0; i < name.length; i++) {
    const c = name[i]!;
    const bracket = c === "[" ? characterClass(name, i) : undefined;
    if (bracket !== undefined) {
      tokens.push(bracket.test);
      i = bracket.end;
    } else if (c === "*") tokens.push("any");
    else tokens.push(c === "?" ? () => true : (found) => found === c);
  }
  return tokens;
}

/** In time that is the product of the two lengths: only the last "any" is ever tried again. */
function matches(tokens: readonly Token[], name: readonly string[]): boolean {
  let [t, n, star, from] = [0, 0, -1, 0];
  while (n < name.length) {
    const token = tokens[t];
    if (token === "any") [star, from] = [t++, n];
    else if (token?.(name[n]!)) [t, n] = [t + 1, n + 1];
    else if (star >= 0) [t, n] = [star + 1, ++from];
    else return false;
  }
  return tokens.slice(t).every((token) => token === "any");
}

/** Whether a name is one that the pattern means. Names that begin with a dot are for patterns that do, too. */
export function createMatcher(pattern: string): (name: string) => boolean {
  const all = alternatives(pattern).map((one) => ({ tokens: tokensOf(one), hidden: one.startsWith(".") }));
  return (name) => all.some(({ tokens, hidden }) => hidden >= name.startsWith(".") && matches(tokens, [...name]));
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

export const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

/** Entries of a folder; none where it is none, or may not be read. */
const entriesOf = (folder: string) => readdir(folder || ".", { withFileTypes: true }).catch(() => []);

async function* walk(folder: string, names: readonly string[]): AsyncGenerator<string> {
  const [name, ...rest] = names;
  if (name === undefined) {
    if (!(await isFolder(folder))) yield folder;
  } else if (name === "**") {
    yield* walk(folder, rest);
    // A link may lead back to where it lies: folders behind one are for patterns that name it.
    const inner = (await entriesOf(folder)).filter((entry) => entry.isDirectory() && !entry.name.startsWith("."));
    for (const entry of inner) yield* walk(join(folder, entry.name), names);
  } else if (!isPattern(name) || (await exists(join(folder, name)))) {
    const path = folder === "" ? name : join(folder, name);
    if (rest.length > 0 || (await exists(path))) yield* walk(path, rest);
  } else {
    const means = createMatcher(name);
    const found = (await entriesOf(folder)).filter((entry) => means(entry.name));
    for (const entry of found) yield* walk(join(folder, entry.name), rest);
  }
}

/** The files that a pattern means, sorted by the characters of their paths. What exists by that very name is meant by it. */
export async function glob(pattern: string): Promise<string[]> {
  const { root } = parse(pattern);
  const written = pattern.slice(root.length).split(SEPARATOR);
  const names = written.filter((name, i, all) => name !== "" && !(name === "**" && all[i - 1] === "**"));
  const found = new Set<string>();
  for await (const path of walk(root, names)) found.add(path);
  return [...found].sort();
}
