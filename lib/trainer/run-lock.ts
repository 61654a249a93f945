import { readFileSync } from "node:fs";
import { link, open, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { RlsdError } from "../errors.js";
import { writing } from "./durable.js";

const LOCK_FILE = "run.lock";

/** Who writes into a run's folder. */
interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the process began, in the kernel's ticks: a number that is used again belongs to another. null: not told here. */
  readonly begun: string | null;
  /** Inode of the lock itself: a lock that came along when a folder was copied is nobody's. */
  readonly inode: string;
}

/** Field 22 of /proc/PID/stat; what comes before it may hold spaces, but ends with the last bracket. */
function beginningOf(pid: number): string | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

/** Whether a lock's owner may still be writing; of another machine's process nothing can be known. */
function isAlive({ pid, host, begun }: Owner): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  return begun === null || begun === beginningOf(pid);
}

function parse(text: string): Owner | undefined {
  try {
    const owner = JSON.parse(text) as Owner;
    return Number.isSafeInteger(owner.pid) && owner.pid > 0 && typeof owner.host === "string" ? owner : undefined;
  } catch {
    return undefined;
  }
}

/** Removes a lock whose owner is dead; one that was made anew in the meantime is put back. */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = `${file}.${process.pid}`;
  try {
    await rename(file, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if ((await readFile(aside, "utf8")) !== stale) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
}

async function take(file: string): Promise<boolean> {
  try {
    const handle = await open(file, "wx");
    const { ino } = await handle.stat({ bigint: true });
    const { pid } = process;
    const owner: Owner = { pid, host: hostname(), begun: beginningOf(pid), inode: String(ino) };
    await handle.writeFile(JSON.stringify(owner));
    await handle.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** A lock's text and inode once it is written: who makes one does so a moment later. undefined: it is gone. */
async function lockAt(file: string): Promise<{ readonly text: string; readonly inode: string } | undefined> {
  try {
    for (let attempt = 0; ; attempt++) {
      const inode = String((await stat(file, { bigint: true })).ino);
      const text = await readFile(file, "utf8");
      if (text !== "" || attempt === 20) return { text, inode };
      await setTimeout(10);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Makes this process the only writer of a run's folder; returns what gives that up. The lock of a process that died is
 * taken over.
 *
 * @throws RlsdError ERR_RLSD_RUN_FOLDER where another process, or another call of this one, is writing there
 */
export async function lockRun(folder: string): Promise<() => Promise<void>> {
  const file = join(folder, LOCK_FILE);
  return writing(file, async () => {
    while (!(await take(file))) {
      const found = await lockAt(file);
      if (found === undefined) continue;
      const owner = parse(found.text);
      if (owner !== undefined && owner.inode === found.inode && isAlive(owner)) {
        const advice = owner.host === hostname() ? "" : ` If it is gone, remove ${file}.`;
        throw new RlsdError(
          "ERR_RLSD_RUN_FOLDER",
          `${folder} is being written by process ${owner.pid} on ${owner.host}. Wait for its end or choose another folder.${advice}`,
        );
      }
      await removeStale(file, found.text);
    }
    let held = true;
    return async () => {
      if (held) await rm(file, { force: true });
      held = false;
    };
  });
}
