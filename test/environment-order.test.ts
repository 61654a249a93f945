import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import { type EnvironmentFunction, train } from "../lib/index.js";
import { Answers } from "../lib/trainer/answers.js";
import { readSamples } from "../lib/trainer/run-logs.js";
import { all } from "./support/run-files.js";
import { talkingModel } from "./support/talking-policy.js";
import { rowsFile } from "./support/tools.js";

const rows = rowsFile([3, 4].map((i) => ({ messages: [{ role: "user", content: `What is ${i} + 2?` }], answer: "5" })));

let model: string;
beforeAll(async () => {
  model = await talkingModel();
});

/** A step of six conversations, whose turns a random model ends soon. */
async function step(environment: EnvironmentFunction, signal?: AbortSignal) {
  const output = join(mkdtempSync(join(tmpdir(), "rlsd-order-")), "run");
  const { stopped } = await train(
    {
      model,
      output,
      data: { train: [rows], shuffle: false },
      environment,
      reward: ({ turns }) => turns!.length,
      algorithm: "grpo",
      steps: 1,
      eval: { atStart: false },
      log: { samples: 100 },
      rollout: { prompts: 2, count: 3, maxTokens: 200, stopStrings: ["e", "a"] },
    },
    { ...(signal && { signal }) },
  );
  return { stopped, samples: await all(readSamples(output)) };
}

const TURNS = 4;
const reply = (turn: number) => (turn < TURNS ? `more ${turn}` : null);

test("a conversation whose answer takes long holds up no other, and is the same conversation", async () => {
  const at: string[] = [];
  let last = () => {};
  const others = new Promise<void>((resolve) => {
    last = resolve;
  });
  const slowly = await step(async ({ id, turn }) => {
    at.push(`${id} ${turn}`);
    if (at.filter((one) => one.endsWith(` ${TURNS}`)).length === 5) last();
    if (turn === 1 && id === at[0]!.split(" ")[0]) await others;
    return reply(turn);
  });
  const { samples } = await step(({ turn }) => reply(turn));
  expect(samples.map(({ messages }) => messages!.length)).toEqual(new Array(6).fill(2 * TURNS - 1));
  expect(slowly.samples).toEqual(samples);
  expect(at.slice(-TURNS + 1).map((one) => one.split(" ")[0])).toEqual(new Array(TURNS - 1).fill(at[0]!.split(" ")[0]));
});

test("an answer that nobody waits for any more is told so", async () => {
  const stop = new AbortController();
  let told: AbortSignal | undefined;
  const { stopped } = await step(({ id, turn }, signal) => {
    if (turn === 1 && id.endsWith("#0")) {
      told = signal;
      return new Promise(() => {});
    }
    if (turn === 3) stop.abort();
    return "more";
  }, stop.signal);
  expect(stopped).toBe("interrupted");
  expect(told!.aborted).toBe(true);
});

describe("answers", () => {
  test("that come soon are waited for, and go on together", async () => {
    const answers = new Answers<string>();
    answers.wait("at once", Promise.resolve(true));
    answers.wait("over", Promise.resolve(false));
    answers.wait("soon", later(20, true));
    expect(await answers.next(10_000)).toEqual(["at once", "soon"]);
    expect(await answers.next(10_000)).toEqual([]);
  });

  test("that take longer than a turn are not, and one is waited for in any case", async () => {
    const answers = new Answers<string>();
    answers.wait("at once", Promise.resolve(true));
    answers.wait("later", later(1000, true));
    expect(await answers.next(20)).toEqual(["at once"]);
    expect(await answers.next(20)).toEqual(["later"]);
  });

  test("that fail end the waiting, now or the next time", async () => {
    const answers = new Answers<string>();
    answers.wait("at once", Promise.resolve(true));
    answers.wait(
      "fails",
      later(20).then(() => Promise.reject(new Error("no room"))),
    );
    await expect(answers.next(10_000)).rejects.toThrow("no room");
    await expect(answers.next(0)).rejects.toThrow("no room");
  });
});
