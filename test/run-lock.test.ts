import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { lockRun } from "../lib/trainer/run-lock.js";
import { lifeOf, type Owner, thisProcess } from "../lib/trainer/run-owner.js";
import { train } from "../lib/trainer/train.js";
import { program } from "./support/child.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

let folder: string;
let here: Owner;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "rlsd-lock-"));
  here = await thisProcess(folder);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const lock = () => join(folder, "run.lock");
const inodeOf = (file: string) => String(statSync(file, { bigint: true }).ino);
/** A lock as that owner, otherwise like this process, would have left it. */
function held(owner: object): void {
  writeFileSync(lock(), "");
  writeFileSync(lock(), JSON.stringify({ ...here, inode: inodeOf(lock()), token: "another", ...owner }));
}
/** A process that is no more. */
const deadPid = () => Number(spawnSync(process.execPath, ["-p", "process.pid"], { encoding: "utf8" }).stdout);
const refusal = { code: "ERR_RLSD_RUN_FOLDER" };
const advised = () => ({ ...refusal, message: expect.stringContaining(`If it is gone, remove ${lock()}.`) });
const child = program("lock-child.ts");
const onLinux = process.platform === "linux" ? test : test.skip;

test("one at a time: the second is told who writes there, and may once the first is done", async () => {
  const unlock = await lockRun(folder);
  await expect(lockRun(folder)).rejects.toMatchObject({
    ...refusal,
    message: expect.stringContaining(`is being written by process ${process.pid} on ${hostname()}`),
  });
  await unlock();
  expect(existsSync(lock())).toBe(false);
  const again = await lockRun(folder);
  // Giving up twice must not take the lock of who came after.
  await unlock();
  expect(existsSync(lock())).toBe(true);
  await again();
});

test("of many that ask at once exactly one gets it, also where a dead one's lock lies there", async () => {
  for (const stale of [false, true]) {
    if (stale) held({ pid: deadPid() });
    const asked = await Promise.allSettled(Array.from({ length: 20 }, () => lockRun(folder)));
    const won = asked.filter((one) => one.status === "fulfilled");
    expect([stale, won.length]).toEqual([stale, 1]);
    await won[0]!.value();
  }
});

test("the lock of a process that died is taken over: it is gone, its number is another's, or it is no lock", async () => {
  const left = [() => held({ pid: deadPid() }), () => held({ begun: "1" }), () => writeFileSync(lock(), '{"pid":')];
  for (const leave of left) {
    leave();
    writeFileSync(`${lock()}.0123456789abcdef`, "of one that died while it took a lock over");
    const unlock = await lockRun(folder);
    expect(JSON.parse(readFileSync(lock(), "utf8"))).toMatchObject({ ...here, inode: inodeOf(lock()) });
    expect(readdirSync(folder)).toEqual(["run.lock"]);
    await unlock();
    expect(readdirSync(folder)).toEqual([]);
  }
});

onLinux("a process that has ended is dead, also where its parent did not ask how", async () => {
  const parent = spawn("sh", ["-c", "sleep 0.3 & echo $!; exec sleep 600"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [said] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(said.toString());
    const stat = () => readFileSync(`/proc/${pid}/stat`, "utf8").split(" ");
    while (stat()[2] !== "Z") await setTimeout(5);
    held({ pid, begun: stat()[21] });
    await (await lockRun(folder))();
  } finally {
    parent.kill("SIGKILL");
  }
});

test("of processes that race for a dead one's lock one has it at a time", async () => {
  const dead = String(deadPid());
  const racer = () => promisify(execFile)(process.execPath, [child, "race", folder, dead]);
  const said = await Promise.all(Array.from({ length: 5 }, racer));
  const told = said.map(({ stdout }) => JSON.parse(stdout) as { wins: number; overlaps: number });
  expect(told.map(({ overlaps }) => overlaps)).toEqual([0, 0, 0, 0, 0]);
  expect(told.reduce((sum, { wins }) => sum + wins, 0)).toBeGreaterThan(5);
}, 120_000);

onLinux("a lock that the disk refuses is not left behind", () => {
  const script = 'ulimit -f 0; exec "$@"';
  const args = ["-c", script, "sh", process.execPath, child, "once", folder];
  const { stdout } = spawnSync("sh", args, { encoding: "utf8" });
  expect(JSON.parse(stdout)).toEqual({ code: "ERR_RLSD_WRITE", left: [], opened: [] });
});

test("who gives up a lock leaves the one that came in its place", async () => {
  const unlock = await lockRun(folder);
  rmSync(lock());
  const other = await lockRun(folder);
  await unlock();
  expect(existsSync(lock())).toBe(true);
  await other();
});

test("a lock that came along when a running folder was copied is nobody's", async () => {
  const unlock = await lockRun(folder);
  const copy = join(folder, "copy");
  mkdirSync(copy);
  copyFileSync(lock(), join(copy, "run.lock"));
  await (await lockRun(copy))();
  await expect(lockRun(folder)).rejects.toMatchObject(refusal);
  await unlock();
});

test("of a process that cannot be seen nothing is known: the lock stays, and what to do is said", async () => {
  const unseen = { boot: null, host: "elsewhere", space: "another" };
  for (const owner of [unseen, ...(process.platform === "linux" ? [{ space: "pid:[1]" }] : [])]) {
    held({ pid: deadPid(), ...owner });
    await expect(lockRun(folder)).rejects.toMatchObject(advised());
    expect(existsSync(lock())).toBe(true);
  }
});

test("what is known of an owner on another kernel, in another container, of another system", () => {
  const [disk, server] = [0xef53, 0x6969];
  const one: Owner = { pid: 2 ** 30, host: "a", begun: "1", boot: "b1", space: "s", machine: "m", files: server };
  const life = (owner: Partial<Owner>, seen: Partial<Owner> = {}) => lifeOf({ ...one, ...owner }, { ...one, ...seen });
  expect(life({})).toBe("dead");
  // The same name in another container says nothing; another name for the same processes does not matter.
  expect(life({ space: "t" })).toBe("unknown");
  expect(life({ host: "renamed" })).toBe("dead");
  // The machine started anew.
  expect(life({ boot: "b0" })).toBe("dead");
  expect(life({ boot: "b0", host: "z" })).toBe("unknown");
  expect(life({ boot: "b0", machine: null }, { machine: null })).toBe("unknown");
  // The disk that it had is here now; on a file server's disk others write as well.
  expect(life({ boot: "b0", host: "z", files: disk }, { files: disk })).toBe("dead");
  expect(life({ boot: "b0", host: "z" }, { files: disk })).toBe("unknown");
  // Systems that tell less.
  const little = { begun: null, boot: null, space: null, machine: null };
  expect(life({}, little)).toBe("unknown");
  expect(life(little, little)).toBe("dead");
  expect(life({ ...little, host: "z" }, little)).toBe("unknown");
});

test("two calls cannot go on with one run; the first is not disturbed, and both end without a lock", async () => {
  const output = join(folder, "run");
  const settings = {
    ...exampleSettings(),
    output,
    steps: 3,
    eval: { limit: 10 },
    rollout: { prompts: 2, count: 4, maxTokens: 32 },
  };
  await train({ ...settings, steps: 1 });
  const results = await Promise.allSettled([train(settings, { resume: output }), train(settings, { resume: output })]);
  expect(results.map((one) => one.status).toSorted()).toEqual(["fulfilled", "rejected"]);
  expect(results.find((one) => one.status === "rejected")).toMatchObject({ reason: refusal });
  const steps = readFileSync(join(output, "metrics.jsonl"), "utf8").trim().split("\n");
  expect(steps.map((line) => JSON.parse(line)).map(({ kind, step }) => `${kind} ${step}`)).toEqual([
    "eval 0",
    "train 1",
    "eval 1",
    "train 2",
    "train 3",
    "eval 3",
  ]);
  expect(existsSync(join(output, "run.lock"))).toBe(false);
  // A call that fails before it begins gives the lock up as well.
  await expect(train({ ...settings, model: folder }, { resume: join(folder, "nowhere") })).rejects.toMatchObject(
    refusal,
  );
  await expect(train({ ...settings, data: { train: ["none.jsonl"] } }, { resume: output })).rejects.toThrow();
  expect(existsSync(join(output, "run.lock"))).toBe(false);
});

test("a run that cannot be given up whole gives up its lock, and its own failure is the one that is told", async () => {
  const { settings } = tinyTask();
  const dispose = () => Promise.reject(new Error("will not go"));
  const reward = { verify: async () => ({ reward: 1 }), dispose };
  const output = join(folder, "run");
  const hooks = { loadPolicy: TinyPolicy.load };
  await expect(train({ ...settings, output, reward, steps: 1 }, hooks)).rejects.toThrow("will not go");
  expect(existsSync(join(output, "run.lock"))).toBe(false);
  const onStep = () => {
    throw new Error("no further");
  };
  const again = train({ ...settings, output, reward, steps: 2 }, { ...hooks, onStep, resume: output });
  await expect(again).rejects.toThrow("no further");
  expect(existsSync(join(output, "run.lock"))).toBe(false);
});
