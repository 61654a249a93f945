import { createHash, randomUUID } from "node:crypto";
import { open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { RlsdError } from "../errors.js";
import { renameOver } from "../policy/folder.js";
import { releasing, writing } from "./durable.js";
import { type Life, lifeOf, type Owner, sameInodes, thisProcess } from "./run-owner.js";

const LOCK_FILE = "run.lock";
/** Looks at a lock that says nothing, and milliseconds between them: who makes one writes it a moment later. */
const LOOKS = 20;
const BETWEEN_LOOKS = 50;
/** Times that another's take-over is waited for, and milliseconds between them. */
const TURNS = 500;
const BETWEEN_TURNS = 10;

interface Lock extends Owner {
  /** Inode of the lock itself: a lock that came along when a folder was copied is nobody's. */
  readonly inode: string;
  /** No two locks are the same. */
  readonly token: string;
}

/** A lock as it is found. */
interface Found {
  readonly text: string;
  readonly inode: string;
  /** Of this very lock: another in its place has another. */
  readonly id: string;
  /** undefined: it is no lock, or was never written whole. */
  readonly lock: Lock | undefined;
}

/** Another's lock, and what is known of that one. */
interface Held {
  readonly file: string;
  readonly lock: Lock;
  /** It is surely no copy, and its owner surely alive. */
  readonly certain: boolean;
}

function parse(text: string): Lock | undefined {
  try {
    const lock = JSON.parse(text) as Lock;
    const told = Number.isSafeInteger(lock.pid) && lock.pid > 0 && typeof lock.host === "string";
    return told ? { ...lock, boot: lock.boot ?? null, begun: lock.begun ?? null } : undefined;
  } catch {
    return undefined;
  }
}

/** The lock in a file, once it is written. undefined: there is none. */
async function lockAt(file: string): Promise<Found | undefined> {
  for (let look = 1; ; look++) {
    const handle = await open(file, "r").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (handle === undefined) return undefined;
    try {
      const { ino, mtimeNs } = await handle.stat({ bigint: true });
      const text = await handle.readFile("utf8");
      const lock = parse(text);
      const id = createHash("sha256").update(`${mtimeNs} ${text}`).digest("hex").slice(0, 16);
      if (lock !== undefined || look === LOOKS) return { text, inode: String(ino), id, lock };
    } finally {
      await handle.close();
    }
    await setTimeout(BETWEEN_LOOKS);
  }
}

/** Makes a lock where there is none; returns its text. undefined: there is one. */
async function create(file: string, here: Owner): Promise<string | undefined> {
  const handle = await open(file, "wx").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EEXIST") return undefined;
    throw error;
  });
  if (handle === undefined) return undefined;
  try {
    const { ino } = await handle.stat({ bigint: true });
    const lock: Lock = { ...here, inode: String(ino), token: randomUUID() };
    const text = JSON.stringify(lock);
    await handle.writeFile(text);
    // Who was too slow with it finds another's in its place.
    return (await lockAt(file))?.text === text ? text : undefined;
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
}

function lifeOfLock({ lock, inode }: Found, here: Owner): Life {
  if (lock === undefined) return "dead";
  if (lock.inode !== inode && sameInodes(lock, here)) return "dead";
  return lifeOf(lock, here);
}

/**
 * Takes a lock, a dead one's too: returns its text, or who has it. A dead one's lock is replaced by whoever has the lock on
 * replacing it, which is a file named after it: no other replaces it meanwhile, and who comes later finds another lock
 * there. Who dies on the way leaves a dead one's lock again.
 */
async function take(file: string, here: Owner): Promise<string | Held> {
  for (let turn = 1; ; turn++) {
    const made = await create(file, here);
    if (made !== undefined) return made;
    const found = await lockAt(file);
    if (found === undefined) continue;
    const life = lifeOfLock(found, here);
    if (found.lock !== undefined && life !== "dead") {
      return { file, lock: found.lock, certain: life === "alive" && found.lock.inode === found.inode };
    }
    const successor = `${file}.${found.id}`;
    const taken = await take(successor, here);
    if (typeof taken === "string") {
      if (await replace(file, found, successor)) return taken;
    } else {
      if (turn >= TURNS) return taken;
      await setTimeout(BETWEEN_TURNS);
    }
  }
}

/** Puts the successor that this process holds in a lock's place; false: it is gone already. */
function replace(file: string, found: Found, successor: string): Promise<boolean> {
  const giveUp = () => rm(successor, { force: true });
  return releasing(giveUp, async () => {
    const same = (await lockAt(file))?.id === found.id;
    await (same ? renameOver(successor, file) : giveUp());
    return same;
  });
}

/** Removes what died on the way to the lock that this process has now: none of it can be followed any more. */
async function removeSuccessors(folder: string): Promise<void> {
  const names = await readdir(folder);
  for (const name of names) if (name.startsWith(`${LOCK_FILE}.`)) await rm(join(folder, name), { force: true });
}

function refusal(folder: string, { file, lock, certain }: Held): RlsdError {
  const advice = certain
    ? ""
    : ` It cannot be seen from here whether it still is (another machine or container, a copied folder, a number used again). If it is gone, remove ${file}.`;
  return new RlsdError(
    "ERR_RLSD_RUN_FOLDER",
    `${folder} is being written by process ${lock.pid} on ${lock.host}. Wait for its end or choose another folder.${advice}`,
  );
}

/**
 * Makes this process the only writer of a run's folder; returns what gives that up. The lock of a process that died is
 * taken over; where that cannot be known, it is the user who removes it.
 *
 * @throws RlsdError ERR_RLSD_RUN_FOLDER where another process, or another call of this one, is writing there
 */
export async function lockRun(folder: string): Promise<() => Promise<void>> {
  const file = join(folder, LOCK_FILE);
  return writing(file, async () => {
    const taken = await take(file, await thisProcess(folder));
    if (typeof taken !== "string") throw refusal(folder, taken);
    let held = true;
    const unlock = async () => {
      if (!held) return;
      held = false;
      // Removed by hand, it may be another's by now.
      if ((await lockAt(file))?.text === taken) await rm(file, { force: true });
    };
    return releasing(unlock, async () => {
      await removeSuccessors(folder);
      return unlock;
    });
  });
}
