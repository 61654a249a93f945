import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { creditCompletions, train } from "../lib/index.js";
import type { CreditHooks, CreditSettings } from "../lib/trainer/credit-run.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

const END = 1;
const { folder, settings } = tinyTask();
const model = join(folder, "model");
const checkpoint = join(settings.output, "checkpoints/step-000002");
const initial = join(settings.output, "checkpoints/initial/teacher");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Rows as a file in the folder of the test. */
function write(name: string, rows: readonly object[]): string {
  const file = join(folder, name);
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  return file;
}

const ask = (letter: string) => ({ question: `say ${letter}`, answer: letter, trace: `${letter}${letter}` });

/** All that comes of a call, the folders whose weights it read, and what it scored and judged. */
async function credited(directory: string, file: string, given: CreditSettings = {}, hooks: CreditHooks = {}) {
  const loaded: string[] = [];
  const policies: TinyPolicy[] = [];
  const seen: string[] = [];
  const loadPolicy = async (from: string) => {
    loaded.push(from);
    policies.push(Object.assign(await TinyPolicy.load(from), { endTokenIds: [END] }));
    return policies.at(-1)!;
  };
  const reward = (sample: Parameters<typeof shareOfLetter>[0]) => {
    seen.push(sample.completion);
    return shareOfLetter(sample);
  };
  const own = { reward, privileged: { source: "trace", template: "{{ content }}. {{ privileged }}" }, ...given };
  const samples: SampleLine[] = [];
  for await (const sample of creditCompletions(directory, [file], own, { loadPolicy, ...hooks })) samples.push(sample);
  return { samples, loaded, seen, scored: policies[0]!.probe.scored };
}

beforeAll(async () => {
  const options = { steps: 4, creditSchedule: { warmup: 4 }, data: { train: settings.data!.train! } };
  await train({ ...settings, ...options }, { loadPolicy: TinyPolicy.load });
  // The tiny policy saves its weights alone.
  for (const name of ["tokenizer.json", "chat_template.jinja"]) {
    cpSync(join(model, name), join(checkpoint, "model", name));
  }
});

test("the teacher is the checkpoint's, as its kind says; a plain model's neighbours are nobody's", async () => {
  const file = write("one.jsonl", [{ ...ask("a"), completions: ["a", "b"] }]);
  const from = async (directory: string, kind: string) => {
    const given = { privileged: { source: "trace" }, teacher: { kind } };
    return (await credited(directory, file, given)).loaded.slice(1);
  };
  // Beside the model, and in a checkpoint that has no teacher of its own.
  for (const place of [folder, checkpoint]) cpSync(initial, join(place, "teacher"), { recursive: true });
  expect(await from(model, "frozen")).toEqual([]);
  expect(await from(join(checkpoint, "model"), "ema")).toEqual([]);
  expect(await from(checkpoint, "frozen")).toEqual([initial]);
  expect(await from(checkpoint, "ema")).toEqual([join(checkpoint, "teacher")]);
  rmSync(join(checkpoint, "teacher"), { recursive: true });
  expect(await from(checkpoint, "periodic")).toEqual([]);
});

test("what a run logged comes out the same of the checkpoint that drew it, at its step's share of the credit", async () => {
  const log = readFileSync(join(settings.output, "samples.jsonl"), "utf8").trim().split("\n");
  const third = log.map((line): SampleLine => JSON.parse(line)).filter(({ step }) => step === 3);
  const rows = third.map(({ prompt, tokenIds, completion }) => ({
    ...ask(/say (.)/.exec(prompt)![1]!),
    completion,
    finish: tokenIds.at(-1) === END ? "stop" : "length",
  }));
  const { samples } = await credited(checkpoint, write("third.jsonl", rows));
  expect(samples).toHaveLength(third.length);
  let compared = 0;
  for (const [i, was] of third.entries()) {
    const is = samples[i]!;
    expect([i, is.completion]).toEqual([i, was.completion]);
    // A special token in the middle is not in the text; a group without a spread has a sign here alone.
    if (was.advantage === 0 || is.tokenIds.join() !== was.tokenIds.join()) continue;
    for (const name of ["advantage", "logProbs", "teacherLogProbs", "evidenceWeights", "tokenAdvantages"] as const) {
      expect([i, name, is[name]]).toEqual([i, name, was[name]]);
    }
    const [weight, advantage] = [is.evidenceWeights[0]!, is.tokenAdvantages[0]!];
    expect(advantage).toBeCloseTo(is.advantage * (0.25 + 0.75 * weight), 5);
    compared++;
  }
  expect(compared).toBeGreaterThan(5);
});

test("a limit gives the first of all, to the bit, and leaves the rest unread, unjudged and unscored", async () => {
  const letters = [..."abcdefghijkl"];
  const rows = [
    ...letters.map((letter) => ({ ...ask(letter), completions: Array.from("abcdef", (one) => one + letter) })),
    // The first group once more, after all the others.
    { ...ask("a"), completion: "aaab" },
  ];
  const file = write("many.jsonl", rows);
  for (const scale of ["group", "batch"]) {
    const given = { advantage: { scale }, privileged: { source: "sibling", successThreshold: 0.5 } };
    const all = await credited(model, file, given);
    expect([all.samples.length, all.seen.length, all.scored]).toEqual([73, 73, expect.any(Number)]);
    expect(all.samples[6]!.completion).toBe("aaab");
    for (const limit of [1, 7, 8, 40]) {
      const first = await credited(model, file, given, { limit });
      expect(first.samples).toEqual(all.samples.slice(0, limit));
      if (limit > 8 || scale === "batch") continue;
      expect(first.seen.length).toBeLessThanOrEqual(13);
      expect(first.scored).toBeLessThanOrEqual(2 * limit);
    }
  }
  await expect(credited(model, file, {}, { limit: 0 })).rejects.toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT" });
});

test("an end token that the text has is not added again, and is none of what is judged", async () => {
  const file = write("ended.jsonl", [
    { ...ask("a"), completions: ["ab<end>", "ab"] },
    { ...ask("b"), completion: "ab", finish: "length" },
  ]);
  const { samples, seen } = await credited(model, file);
  const [written, plain, cut] = samples.map(({ tokenIds }) => tokenIds);
  expect(written).toEqual(plain);
  expect([plain!.at(-1), plain!.length, cut!.length]).toEqual([END, 3, 2]);
  expect(seen).toEqual(["ab", "ab", "ab"]);
});

test("the teacher is told the choice that the number of an answer means", async () => {
  const row = { question: "say b", answer: 1, choices: ["aa", "bb"], completion: "a" };
  const privileged = { source: "answer", template: "{{ content }}. {{ privileged }}" };
  const { samples } = await credited(model, write("choices.jsonl", [row]), { reward: "choice", privileged });
  expect(samples.map((sample) => sample.privileged)).toEqual(["B. bb"]);
});
