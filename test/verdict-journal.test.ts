import { execFileSync } from "node:child_process";
import { appendFileSync, closeSync, mkdtempSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { LineFile } from "../lib/trainer/durable.js";
import { readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { VerdictJournal } from "../lib/trainer/verdict-journal.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

const hooks = { loadPolicy: TinyPolicy.load };

function writeRows(file: string, rows: readonly object[]): string {
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  return file;
}

test("rows that share an id and a question are judged each by its own answer", async () => {
  const { folder, settings } = tinyTask();
  // More rows than one call judges: the second half would find what was said of the first.
  const rows = Array.from({ length: 256 }, (_, i) => ({ id: i % 128, question: "say a", answer: i < 128 ? "a" : "b" }));
  const data = { ...settings.data, eval: [writeRows(join(folder, "alike.jsonl"), rows)] };
  const reward = ({ row }: Sample) => (row.answer === "a" ? 1 : 0);
  const { accuracy } = await train({ ...settings, steps: 0, data, reward }, hooks);
  expect(accuracy).toEqual({ first: 0.5, last: 0.5 });
});

test("a verdict is remembered for its own row alone, and what an older version wrote is left aside", async () => {
  const { folder, settings } = tinyTask();
  const rows = [..."abcd"].map((answer) => ({ id: "same", question: "say a", answer }));
  const train1 = writeRows(join(folder, "same.jsonl"), rows);
  const control = new AbortController();
  let calls = 0;
  const asked: string[] = [];
  const judge = async ({ row }: Sample) => {
    asked.push(String(row.answer));
    // The first half of the step's verdicts are on disk when the run is stopped.
    if (++calls > 8) {
      await setTimeout(200);
      control.abort();
    }
    return "abcd".indexOf(String(row.answer));
  };
  const short = {
    ...settings,
    steps: 1,
    rollout: { prompts: 4, count: 4, maxTokens: 1, temperature: 0.01 },
    data: { train: [train1], shuffle: false },
  };
  const stopped = await train({ ...short, reward: judge }, { ...hooks, signal: control.signal });
  expect(stopped).toMatchObject({ stopped: "interrupted", step: 0 });
  const journal = join(settings.output, "checkpoints", "verdicts.jsonl");
  expect(readFileSync(journal, "utf8").trim().split("\n")).toHaveLength(8);
  appendFileSync(journal, '{"step":1,"name":"train-0","id":"same#0","tokens":1,"verdict":{"reward":9,"detail":{}}}\n');
  asked.length = 0;
  await train({ ...short, reward: judge }, { ...hooks, resume: settings.output });
  expect(asked.join("")).toBe("ccccdddd");
  const rewards: unknown[] = [];
  for await (const { reward } of readSamples(settings.output)) rewards.push(reward);
  expect(rewards).toEqual([0, 1, 2, 3].flatMap((reward) => [reward, reward, reward, reward]));
});

describe("a journal", () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-journal-"));
  const entry = (step: number, text: string) => {
    const verdict = { reward: 1, detail: {}, reason: text };
    return `${JSON.stringify({ step, name: "train-0", id: "a", group: step, judged: "x", verdict })}\n`;
  };
  const opening = (path: string) => VerdictJournal.open(path, "exact");

  test.each<[string, (line: string) => Buffer]>([
    ["a line that is no longer UTF-8", (line) => Buffer.from(line.replace("said", "\xff"), "latin1")],
    ["a line without a verdict", () => Buffer.from('{"step":1,"judged":"x"}\n')],
    ["a reward that is a text", (line) => Buffer.from(line.replace('"reward":1', '"reward":"1"'))],
    ["half a line", (line) => Buffer.from(`${line.slice(0, 30)}\n`)],
    ["a line of nothing", () => Buffer.from("null\n")],
  ])("with %s is damaged, and stays as it is", async (name, change) => {
    const path = join(folder, `${name}.jsonl`);
    const bytes = Buffer.concat([Buffer.from(entry(1, "said")), change(entry(2, "said")), Buffer.from("rest")]);
    writeFileSync(path, bytes);
    await expect(opening(path)).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining(".jsonl:2 is no verdict: the file is damaged."),
    });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test("that is a folder or a pipe is an error", async () => {
    execFileSync("mkfifo", [join(folder, "pipe")]);
    for (const path of [folder, join(folder, "pipe")]) {
      await expect(opening(path)).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
    }
  });

  test("forgets in one stroke: at no moment is a verdict that is still wanted not on disk", async () => {
    const path = join(folder, "kept.jsonl");
    writeFileSync(path, entry(1, "done") + entry(2, "é wanted") + entry(2, "half").slice(0, 20));
    const journal = await opening(path);
    const before = openSync(path, "r");
    await journal.settle(1);
    // Another file is in its place, and nothing was taken from this one.
    expect(readFileSync(before, "utf8")).toBe(entry(1, "done") + entry(2, "é wanted"));
    closeSync(before);
    expect(readFileSync(path, "utf8")).toBe(entry(2, "é wanted"));
    await journal.close();
    await (await opening(path)).close();
    expect(readFileSync(path, "utf8")).toBe(entry(2, "é wanted"));
  });
});

const example = {
  id: "e",
  where: "f:1",
  messages: [],
  answer: "1",
  trace: null,
  document: null,
  tools: [],
  reply: null,
  row: { answer: "1" },
};
const rollout = {
  id: "e#0",
  group: 0,
  prompt: { example, text: "q", ids: Int32Array.of(1) },
  tokenIds: Int32Array.of(1),
  logProbs: new Float32Array(1),
  finish: "stop" as const,
  text: "1",
};
const occasion = { step: 1, name: "train-0" };

test("another reward asks again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-verdicts-"));
  const path = join(folder, "verdicts.jsonl");
  const found = async (...rewards: Parameters<typeof VerdictJournal.open>[1][]) => {
    const out: (number | null | undefined)[] = [];
    for (const reward of rewards) {
      const journal = await VerdictJournal.open(path, reward);
      const { known, record } = journal.at(occasion, rollout);
      out.push(known?.reward);
      if (out.length === 1) await record({ reward: 1, detail: {} });
      await journal.close();
    }
    return out;
  };
  expect(
    await found({ type: "numeric", tolerance: 0 } as never, { type: "numeric", tolerance: 0 } as never, "numeric"),
  ).toEqual([undefined, 1, undefined]);
  expect(await found(shareOfLetter, () => 0, "math")).toEqual([undefined, 1, undefined]);
});

test("verdicts that come while others are being written go to disk together, and each is there when it is said to be", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "rlsd-verdicts-")), "verdicts.jsonl");
  const journal = await VerdictJournal.open(path, "numeric");
  const append = jest.spyOn(LineFile.prototype, "append");
  const ids = Array.from({ length: 40 }, (_, i) => `e#${i}`);
  await Promise.all(
    ids.map(async (id, i) => {
      await journal.at(occasion, { ...rollout, id }).record({ reward: i, detail: {} });
      expect(readFileSync(path, "utf8")).toContain(`"${id}"`);
    }),
  );
  expect(append).toHaveBeenCalledTimes(1);
  append.mockRestore();
  await journal.close();
  const again = await VerdictJournal.open(path, "numeric");
  expect(ids.map((id) => again.at(occasion, { ...rollout, id }).known?.reward)).toEqual(ids.map((_, i) => i));
  await again.close();
});
