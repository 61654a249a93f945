import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { readConfigFile } from "../../lib/trainer/config-file.js";
import { createVerifier, type WorkerVerifier } from "../../lib/verifiers/registry.js";
import { fixture, hasEnded, isAlive, never, root, sample, until } from "./support.js";

const PROGRAM = fixture("grade.py");
const made: WorkerVerifier[] = [];

function program(o: Record<string, unknown> = {}, ...args: string[]): WorkerVerifier {
  const spec = { type: "command", command: ["python3", PROGRAM, ...args], workers: 1, deadlineMs: 20_000, ...o };
  const verifier = createVerifier(spec) as WorkerVerifier;
  made.push(verifier);
  return verifier;
}

const ask = (verifier: WorkerVerifier, completion: string, id = completion) =>
  verifier.verify(sample(completion, { answer: "right", large: 2n ** 60n }, { id }), never);

afterEach(() => Promise.all(made.splice(0).map((verifier) => verifier.dispose?.())));

test("a program judges its samples one after another, whatever else it writes", async () => {
  const verifier = program();
  const verdicts = await Promise.all(["right", "wrong", "right"].map((said, i) => ask(verifier, said, `s${i}`)));
  expect(verdicts.map(({ reward }) => reward)).toEqual([1, 0, 1]);
  expect(new Set(verdicts.map(({ detail }) => detail?.pid)).size).toBe(1);
  expect(verifier.stats).toMatchObject({ judged: 3, workersStarted: 1 });
});

test("a second word about a sample is not taken for the next one", async () => {
  const verifier = program();
  const verdicts = await Promise.all(["twice", "right", "wrong"].map((said) => ask(verifier, said)));
  expect(verdicts.map(({ reward }) => reward)).toEqual([0.25, 1, 0]);
});

test("a line without the sample's id is no verdict", async () => {
  const verifier = program();
  expect(await ask(verifier, "nameless")).toMatchObject({
    reward: null,
    reason: "bad-verdict",
    detail: { message: expect.stringContaining('"id"') },
  });
  expect((await ask(verifier, "right")).reward).toBe(1);
});

test("numbers that are none, as Python writes them, keep nobody waiting", async () => {
  const verifier = program();
  expect(await ask(verifier, "nan")).toMatchObject({
    reward: null,
    reason: "bad-verdict",
    detail: { message: expect.stringMatching(/as "reward" but the verifier returned NaN/) },
  });
  expect(await ask(verifier, "nan in detail")).toMatchObject({
    reward: 0,
    detail: { scores: [null, 1], said: "x: NaN" },
  });
});

test("what loads long says when it is ready, and its deadline is for samples alone", async () => {
  const verifier = program({ ready: true, deadlineMs: 20_000 }, "--ready");
  await verifier.start!();
  expect((await ask(verifier, "right")).reward).toBe(1);
  const never = program({ ready: true, startMs: 500 });
  await expect(never.start!()).rejects.toMatchObject({ code: "ERR_RLSD_VERIFIER_START" });
});

test("a program that hangs, fails or grows costs one sample, and is started again", async () => {
  const verifier = program({ deadlineMs: 3000, memoryMb: 300 });
  const first = (await ask(verifier, "right")).detail?.pid as number;
  expect(await ask(verifier, "hang")).toMatchObject({ reward: null, reason: "timeout" });
  await until(() => !isAlive(first));
  expect(await ask(verifier, "fail")).toMatchObject({
    reward: null,
    reason: "crash",
    detail: { message: "ValueError: cannot read this" },
  });
  expect(await ask(verifier, "long")).toMatchObject({
    reason: "crash",
    detail: { message: expect.stringMatching(/a line longer than 1048576 bytes/) },
  });
  if (process.platform === "linux") expect(await ask(verifier, "grow")).toMatchObject({ reason: "out-of-memory" });
  expect((await ask(verifier, "right")).reward).toBe(1);
});

test("a program that answers in another form is told by its last line, where no verdict comes in time", async () => {
  const code = "import sys\nfor line in sys.stdin: print(1.0)";
  const verifier = createVerifier({ type: "command", command: ["python3", "-c", code], deadlineMs: 1500 });
  expect(await ask(verifier, "right")).toMatchObject({
    reward: null,
    reason: "timeout",
    detail: { message: "no answer within 1.5 s, and the last that was written is: 1.0", deadlineMs: 1500 },
  });
  await verifier.dispose?.();
});

test("a program that never ran says so in its own last words", async () => {
  const verifier = createVerifier({ type: "command", command: ["python3", "none-such.py"] });
  const { detail } = await ask(verifier, "right");
  expect(detail?.message).toMatch(/^Error: the program ended with code 2: .*can't open file .*none-such\.py/);
  await verifier.dispose?.();
});

test("a program that hangs does not outlive a process that was killed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-command-"));
  const pidFile = join(folder, "pid");
  const code = "import os,sys\nopen(sys.argv[1],'w').write(str(os.getpid()))\nwhile True: pass";
  const spec = { type: "command", command: ["python3", "-c", code, pidFile], deadlineMs: 600_000 };
  const source = `
    import { createVerifier } from ${JSON.stringify(pathToFileURL(join(root, "dist/verifiers/registry.js")).href)};
    createVerifier(${JSON.stringify(spec)}).verify({ id: "a", prompt: "", completion: "", finish: "stop", row: {} });`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", source], { stdio: "inherit" });
  await until(() => existsSync(pidFile) && readFileSync(pidFile, "utf8") !== "");
  const pid = Number(readFileSync(pidFile, "utf8"));
  parent.kill("SIGKILL");
  await until(() => hasEnded(pid));
});

test("a program that is not there, or that ends at once, is told before anything is judged", async () => {
  const missing = program({ command: ["rlsd-no-such-program"] });
  await expect(missing.start!()).rejects.toMatchObject({
    code: "ERR_RLSD_VERIFIER_START",
    message: expect.stringMatching(/command rlsd-no-such-program could not be run: .*ENOENT/),
  });
  const broken = program({ command: ["python3", "-c", "import no_such_module"], ready: true });
  await expect(broken.start!()).rejects.toThrow(/ModuleNotFoundError: No module named 'no_such_module'/);
});

test("options: its folder, its variables, what every row must have", async () => {
  const code =
    "import json,os,sys\nfor l in sys.stdin: s=json.loads(l); print(json.dumps(dict(id=s['id'],reward=1,detail=dict(cwd=os.getcwd(),word=os.environ['WORD']))))";
  const cwd = dirname(PROGRAM);
  const verifier = program({ command: ["python3", "-c", code], cwd, env: { WORD: "said" }, fields: ["answer"] });
  expect((await ask(verifier, "right")).detail).toEqual({ cwd, word: "said" });
  expect(() => verifier.check!({})).toThrow(/"command" needs field "answer" to be present/);
  expect(() => program({ command: "python3" })).toThrow(/a non-empty list for option "command"/);
  const nowhere = program({ cwd: join(cwd, "nowhere") });
  await expect(nowhere.start!()).rejects.toThrow(/could not be run in .*nowhere/);
});

test("of a settings file is run where the file is, also in a list and in a sum", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-command-"));
  const file = join(folder, "run.json");
  const command = { type: "command", command: ["python3", "grade.py"] };
  const parts = [{ verifier: command }, { verifier: { ...command, cwd: "graders" } }];
  for (const reward of [parts, { type: "sum", parts }]) {
    writeFileSync(file, JSON.stringify({ reward }));
    const read = (await readConfigFile(file)).reward as typeof reward;
    const verifiers = (Array.isArray(read) ? read : read.parts).map(({ verifier }) => verifier);
    expect(verifiers).toEqual([
      { ...command, cwd: folder },
      { ...command, cwd: join(folder, "graders") },
    ]);
  }
});
