// A process that asks for a run's lock: lock-child.ts once FOLDER, lock-child.ts race FOLDER DEAD_PID.
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { RlsdError } from "../../lib/errors.js";
import { lockRun } from "../../lib/trainer/run-lock.js";

const [, , task, folder, deadPid] = process.argv as [string, string, string, string, string];
const lock = join(folder, "run.lock");
const REFUSED = "ERR_RLSD_RUN_FOLDER";

/** Leaves the lock that this process has as one of a process that died with it. */
function leaveDead(): void {
  const aside = join(folder, `left-${process.pid}`);
  const text = readFileSync(lock, "utf8");
  writeFileSync(aside, JSON.stringify({ ...JSON.parse(text), pid: Number(deadPid), token: `${Math.random()}` }));
  renameSync(aside, lock);
}

/** Takes the lock and dies with it, again and again. */
async function race(): Promise<{ wins: number; overlaps: number }> {
  const inside = join(folder, "inside");
  const end = Date.now() + 3000;
  let [wins, overlaps] = [0, 0];
  while (Date.now() < end) {
    try {
      await lockRun(folder);
    } catch (error) {
      if ((error as RlsdError).code !== REFUSED) throw error;
      continue;
    }
    wins++;
    try {
      closeSync(openSync(inside, "wx"));
    } catch {
      overlaps++;
    }
    await setTimeout(1);
    rmSync(inside, { force: true });
    leaveDead();
  }
  return { wins, overlaps };
}

/** What became of asking once, and of the folder. */
async function once() {
  const code = await lockRun(folder).then(
    () => "locked",
    (error: RlsdError) => error.code,
  );
  const links = readdirSync("/proc/self/fd").map((name) => {
    try {
      return readlinkSync(join("/proc/self/fd", name));
    } catch {
      return "";
    }
  });
  return { code, left: readdirSync(folder), opened: links.filter((path) => path.startsWith(folder)) };
}

(task === "race" ? race() : once()).then(
  (told) => process.stdout.write(JSON.stringify(told)),
  (error: Error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  },
);
