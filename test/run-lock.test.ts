import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { lockRun } from "../lib/trainer/run-lock.js";
import { train } from "../lib/trainer/train.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "rlsd-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const lock = () => join(folder, "run.lock");
/** A lock as that owner would have left it. */
function held(owner: object): void {
  writeFileSync(lock(), "");
  writeFileSync(lock(), JSON.stringify({ inode: String(statSync(lock(), { bigint: true }).ino), ...owner }));
}
/** A process that is no more. */
const deadPid = () => Number(spawnSync(process.execPath, ["-p", "process.pid"], { encoding: "utf8" }).stdout);
const refusal = { code: "ERR_RLSD_RUN_FOLDER" };

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
    if (stale) held({ pid: deadPid(), host: hostname(), begun: null });
    const asked = await Promise.allSettled(Array.from({ length: 20 }, () => lockRun(folder)));
    const won = asked.filter((one) => one.status === "fulfilled");
    expect([stale, won.length]).toEqual([stale, 1]);
    await won[0]!.value();
  }
});

test("the lock of a process that died is taken over: it is gone, its number is another's, or it is no lock", async () => {
  const { pid } = process;
  for (const owner of [{ pid: deadPid(), host: hostname(), begun: null }, { pid, host: hostname(), begun: "1" }, {}]) {
    held(owner);
    const unlock = await lockRun(folder);
    expect(JSON.parse(readFileSync(lock(), "utf8"))).toMatchObject({ pid, host: hostname() });
    await unlock();
  }
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

test("of another machine's process nothing can be known: the lock stays, and what to do is said", async () => {
  held({ pid: deadPid(), host: "elsewhere", begun: null });
  await expect(lockRun(folder)).rejects.toMatchObject({
    ...refusal,
    message: expect.stringContaining(`If it is gone, remove ${lock()}.`),
  });
  expect(existsSync(lock())).toBe(true);
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
