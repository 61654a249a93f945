import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout } from "node:timers/promises";

export const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * Makes a folder and what it lies in, as mkdir -p. Not `mkdir(path, { recursive: true })`: Node 20's never returns where a
 * file system answers ENOENT although the parent is there, as /proc does.
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || parent === path) throw error;
    await makeFolder(parent);
    await mkdir(path).catch((again: NodeJS.ErrnoException) => {
      if (again.code !== "EEXIST") throw again;
    });
  }
}

/** Milliseconds, doubled from try to try: for 5 s in all. */
const [FIRST_WAIT, LAST_WAIT] = [10, 2560];

/**
 * Renames, over what is there. Windows refuses that while anybody has a file of it open, as a reader or a virus scanner does
 * for a moment: there it is tried again.
 */
export async function renameOver(from: string, to: string): Promise<void> {
  for (let wait = FIRST_WAIT; ; wait *= 2) {
    try {
      return await rename(from, to);
    } catch (error) {
      const passes = ["EPERM", "EACCES", "EBUSY"].includes((error as NodeJS.ErrnoException).code ?? "");
      if (process.platform !== "win32" || !passes || wait > LAST_WAIT) throw error;
      await setTimeout(wait);
    }
  }
}

/** What was made or renamed in a folder is found there after a power cut. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } catch (error) {
    // Folders cannot be flushed on Windows, where renames are durable by themselves.
    if ((error as NodeJS.ErrnoException).code !== "EPERM") throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Milliseconds. Nothing is written for so long without a sign of it: what was last touched so long before another thing was
 * written belongs to a writer that died.
 */
const ABANDONED = 3_600_000;

/** When something was last written to: a folder is as new as the newest file in it. */
async function lastWritten(path: string): Promise<number> {
  const { mtimeMs } = await stat(path);
  const names: string[] = await readdir(path).catch(() => []);
  const times = await Promise.all(names.map(async (name) => (await stat(join(path, name))).mtimeMs));
  return Math.max(mtimeMs, ...times);
}

/**
 * Removes what writers that died left beside a file or folder that was just written: `begin`, twelve hexadecimal digits,
 * `end`. Its time is the file system's own clock.
 */
export async function removeAbandoned(written: string, begin: string, end = ""): Promise<void> {
  const { mtimeMs } = await stat(written);
  for (const name of await readdir(dirname(written))) {
    const middle = name.slice(begin.length, name.length - end.length);
    if (name !== `${begin}${middle}${end}` || !/^[0-9a-f]{12}$/.test(middle)) continue;
    const aside = join(dirname(written), name);
    if ((await lastWritten(aside)) < mtimeMs - ABANDONED) await rm(aside, { recursive: true, force: true });
  }
}
