import { lstatSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { RlsdError } from "../../errors.js";
import { readFault } from "../../read-fault.js";
import { glob, isFolder, isPattern } from "./glob.js";
import { kindOf } from "./read-rows.js";

/** Names that are shown of a folder. */
const SHOWN = 6;

const fail = (message: string): never => {
  throw new RlsdError("ERR_RLSD_DATA", message);
};

/** "holds a.csv, b.csv and 3 more", of a folder's names in their order. */
function holds(names: readonly string[]): string {
  if (names.length === 0) return "is empty";
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : "";
  return `holds ${names.slice(0, SHOWN).join(", ")}${more}`;
}

/** What lies where a pattern looks: in the folder above its first name that is one, or in the next above that is there. */
async function whatLiesThere(pattern: string): Promise<string> {
  let wanted = resolve(pattern);
  while (isPattern(wanted)) wanted = dirname(wanted);
  let folder = wanted;
  while (!(await isFolder(folder))) folder = dirname(folder);
  const there = await readdir(folder).then(
    (found) => `${folder} ${holds(found.sort())}`,
    (error: NodeJS.ErrnoException) => `${folder} cannot be read (${error.code})`,
  );
  return folder === wanted ? there : `there is no folder ${wanted}, and ${there}`;
}

/** The data files of a folder, not of folders in it. Names that begin with "." or "_" are marks of those who wrote the others. */
async function filesOf(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: Error) =>
    fail(`cannot read ${folder}: ${readFault(folder, error)}.`),
  );
  names.sort();
  const data = names.filter((name) => !/^[._]/.test(name) && kindOf(name) !== undefined);
  const paths = await Promise.all(data.map(async (name) => ((await isFolder(join(folder, name))) ? [] : [name])));
  const files = paths.flat();
  if (files.length === 0) {
    fail(
      `${folder} has no data files (JSONL, JSON, CSV, TSV or Parquet): it ${holds(names)}. Folders in it are for a pattern: ${join(folder, "**", "*.jsonl")}.`,
    );
  }
  // Kinds that differ in their compression are one; a file that is there twice would be read twice.
  const plain = (name: string) => name.replace(/\.gz$/i, "");
  const kinds = new Set(files.map((name) => plain(kindOf(name)!)));
  if (kinds.size > 1) {
    const which = join(folder, `*${[...kinds][0]}`);
    fail(
      `${folder} has data files of several kinds (${[...kinds].join(", ")}): it ${holds(files)}. Say which: ${which}.`,
    );
  }
  const twice = files.find((name) => name !== plain(name) && files.includes(plain(name)));
  if (twice !== undefined) {
    fail(`${folder} has ${plain(twice)} and ${twice}, which would be read both: say which, or take one away.`);
  }
  return files.map((name) => join(folder, name));
}

function exists(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** What a folder or a pattern means; undefined: the entry is a file, there or not. */
async function meant(entry: string): Promise<readonly string[] | undefined> {
  if (await isFolder(entry)) return filesOf(entry);
  if (!isPattern(entry) || exists(entry)) return undefined;
  const found = await glob(entry);
  return found.length > 0 ? found : fail(`nothing matches ${entry}: ${await whatLiesThere(entry)}.`);
}

/**
 * The files that a list of files, folders and patterns means: entries in their order, those of a folder or a pattern sorted
 * by the characters of their paths. What a folder or a pattern means is there once; a file alone as often as it is named.
 *
 * @throws RlsdError ERR_RLSD_DATA where a folder or a pattern means none, with what lies there
 */
export async function findDataFiles(entries: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  const named = new Set<string>();
  const found = new Set<string>();
  for (const entry of entries) {
    const several = await meant(entry);
    for (const file of several ?? [entry]) {
      const path = resolve(file);
      if (found.has(path) || (several !== undefined && named.has(path))) continue;
      (several === undefined ? named : found).add(path);
      files.push(file);
    }
  }
  return files;
}
