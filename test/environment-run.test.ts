import { mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answerLine } from "../lib/cli/answer.js";
import type { EnvironmentFunction, Turn } from "../lib/environments/environment.js";
import { fileLines } from "../lib/file-lines.js";
import { creditCompletions, type EnginePolicy, evaluateModel, loadPolicy, type PrefixUse } from "../lib/index.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { readConfigFile } from "../lib/trainer/config-file.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { answers, disposeAsked, openAsked, promptOf } from "../lib/trainer/generate-run.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { readMetrics, readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { all } from "./support/run-files.js";
import { END, type Script, scripted, talkingModel } from "./support/talking-policy.js";
import { rowsFile, tokenizer } from "./support/tools.js";

const question = (i: number) => ({
  messages: [{ role: "user", content: `What is ${i} + 2?` }],
  answer: `${i + 2}`,
  trace: `It is ${i + 2}.`,
});
const CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 2}}\n</tool_call>';

const tools = {
  add: {
    description: "Adds two numbers.",
    parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } }, required: ["a", "b"] },
    call: ({ a, b }: { a: number; b: number }) => a + b,
  },
};

let model: string;
beforeAll(async () => {
  model = await talkingModel();
});

/** Settings of a run on two rows. */
const settings = (o: Omit<TrainConfig, "output"> = {}): TrainConfig & { output: string } => ({
  model,
  output: join(mkdtempSync(join(tmpdir(), "rlsd-environment-run-")), "run"),
  data: { train: [rowsFile([question(3), question(4)])], shuffle: false },
  steps: 1,
  reward: ({ completion, row }) => Number(completion.includes(String(row.answer))),
  privileged: { template: "{{ content }} {{ privileged }}" },
  objective: { creditMix: 1 },
  eval: { atStart: false },
  log: { samples: 100 },
  ...o,
  rollout: { prompts: 2, count: 2, maxTokens: 200, ...o.rollout },
});

/** The first completion of each prompt calls and then says what it was told; the second guesses at once. */
const calling: Script = (read, sample) => {
  const [, told] = /<tool_response>\n(.*)\n<\/tool_response>/.exec(read) ?? [];
  if (told !== undefined) return `It is ${told}.${END}`;
  return sample === 0 ? `${CALL}${END}` : `I guess 6.${END}`;
};

async function run(o: Omit<TrainConfig, "output">, script: Script = calling): Promise<SampleLine[]> {
  const given = settings(o);
  await train(given, { loadPolicy: (directory) => scripted(directory, script) as never });
  return all(readSamples(given.output));
}

const drawnText = ({ tokenText, mask }: SampleLine) => tokenText.filter((_, t) => mask?.[t] === 1).join("");

describe("a run with tools", () => {
  test("draws turns, reads results between them, and learns from what it drew alone", async () => {
    const given = settings({ environment: { type: "tools", tools } });
    await train(given, { loadPolicy: (directory) => scripted(directory, calling) as never });
    const samples = await all(readSamples(given.output));
    const [called, guessed] = samples;
    expect(called).toMatchObject({
      completion: "It is 5.",
      reward: 1,
      detail: { calls: 1, failedCalls: 0 },
      finish: "stop",
    });
    expect(called!.messages!.map(({ role, content }) => [role, content])).toEqual([
      ["assistant", ""],
      ["tool", "5"],
      ["assistant", "It is 5."],
    ]);
    expect(drawnText(called!)).toBe(`${CALL}${END}It is 5.${END}`);
    expect(called!.tokenText.join("")).toBe(
      `${CALL}${END}\n<|im_start|>user\n<tool_response>\n5\n</tool_response>${END}\n<|im_start|>assistant\nIt is 5.${END}`,
    );
    expect(guessed).toMatchObject({ completion: "I guess 6.", reward: 0 });
    expect(guessed!.mask).toEqual(guessed!.tokenIds.map(() => 1));
    for (const { mask, tokenAdvantages, evidenceWeights, advantage, teacherLogProbs } of samples) {
      expect(teacherLogProbs.length).toBe(mask!.length);
      for (const [t, drawn] of mask!.entries()) {
        expect(tokenAdvantages[t] === 0).toBe(drawn === 0);
        if (drawn === 0) expect(evidenceWeights[t]).toBe(1);
        else expect(Math.sign(tokenAdvantages[t]!)).toBe(Math.sign(advantage));
      }
    }
    const [metrics] = await all(readMetrics(given.output));
    const drawn = samples.reduce((n, { mask }) => n + mask!.reduce((a, b) => a + b, 0), 0);
    expect(metrics).toMatchObject({ tokens: drawn, turns: 1.5, accuracy: 0.5 });
  });

  test("the plan shows what is offered", async () => {
    const plan = await dryRun(settings({ environment: { type: "tools", tools } }));
    expect(plan.asked.student).toMatch(/Tools:\n<tools>\n.*"name": "add"/);
    expect(plan.asked.teacher).toMatch(/"name": "add".* It is 5\./s);
    expect(plan.environment).toEqual({ tools: ["add"], turns: 8 });
  });

  test("the environment's tool answers where a row has one of that name", async () => {
    const own = { type: "function", function: { name: "add", description: "mine", parameters: { type: "object" } } };
    const data = { train: [rowsFile([{ ...question(3), tools: [own] }])] };
    const { asked } = await dryRun(settings({ data, environment: { type: "tools", tools } }));
    expect(asked.student).not.toContain("mine");
    expect(asked.student.match(/"name": "add"/g)).toHaveLength(1);
  });
});

test.each(["opsd", "grpo+opsd"] as const)(
  "algorithm %s imitates the teacher where the model drew, and nowhere else",
  async (algorithm) => {
    const samples = await run({ environment: { type: "tools", tools }, algorithm });
    expect(samples.some(({ mask }) => mask!.includes(0))).toBe(true);
    for (const { mask, divergences } of samples) {
      expect(divergences!.map((value) => Number(value !== 0))).toEqual(mask);
    }
  },
);

test("paths of a file of settings are meant from there, in a run, in what it is asked later and in what is credited", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-environment-yaml-"));
  const parameters = JSON.stringify(tools.add.parameters);
  const source = `export const add = { description: "Adds.", parameters: ${parameters}, call: ({ a, b }) => a + b };`;
  writeFileSync(join(folder, "tools.mjs"), source);
  writeFileSync(join(folder, "run.yaml"), "environment: { type: tools, path: tools.mjs }");
  const { environment } = (await readConfigFile(join(folder, "run.yaml"))) as TrainConfig;
  expect(environment).toEqual({ type: "tools", path: join(folder, "tools.mjs") });
  const given = settings({ environment, reward: "numeric", objective: {} });
  await train(given, { loadPolicy: (directory) => scripted(directory, calling) as never });
  const asked = await openAsked(given.output, {}, { loadPolicy: (directory) => scripted(directory, calling) as never });
  try {
    const prompt = promptOf(asked, [{ role: "user", content: "What is 3 + 2?" }], "0");
    expect(prompt.text).toContain('"name": "add"');
    const said: string[] = [];
    const onReply = (replies: readonly { content: string }[]) => said.push(...replies.map(({ content }) => content));
    const drawn = answers(asked, [prompt], { count: 1, temperature: 0, onReply });
    const [rollout] = (await drawn.next()).value!;
    expect([said, rollout!.text]).toEqual([["5"], "It is 5."]);
    // As `rlsd generate --json` prints it.
    const line = answerLine(rollout!);
    expect(line).toMatchObject({
      completion: "It is 5.",
      messages: [{ role: "user" }, { role: "assistant", tool_calls: [{}] }, { role: "tool", content: "5" }],
      tools: [{ function: { name: "add" } }],
    });
    const file = rowsFile([{ ...line, answer: "5", reward: 1 }]);
    const credited = await all(creditCompletions(given.output, [file]));
    expect(credited[0]).toMatchObject({ reward: 1, tokenIds: line.tokenIds });
    expect(credited[0]!.prompt).toBe(line.prompt);
  } finally {
    await disposeAsked(asked);
  }
});

test("a conversation that was cut between its turns is credited as it was drawn, end token included", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-environment-cut-"));
  writeFileSync(join(folder, "more.mjs"), "export const respond = () => 'And then?';");
  const environment = { type: "module", path: join(folder, "more.mjs") } as const;
  const script: Script = () => `It is 5.${END}`;
  const asked = await openAsked(
    model,
    { environment, rollout: { turns: 2, maxTokens: 100 } },
    { loadPolicy: (directory) => scripted(directory, script) as never },
  );
  try {
    const prompt = promptOf(asked, [{ role: "user", content: "What is 3 + 2?" }], "0");
    const [rollout] = (await answers(asked, [prompt], { count: 1, temperature: 0 }).next()).value!;
    const line = answerLine(rollout!);
    const last = tokenizer.encode(`It is 5.${END}`);
    expect(line).toMatchObject({ completion: "It is 5.", finish: "length", tokenIds: [...last] });
    const credit = async (row: object) => {
      const given = { privileged: { source: "answer" }, rollout: { maxTokens: 100 } } as const;
      const file = rowsFile([{ ...line, answer: "5", reward: 1, ...row }]);
      return (await all(creditCompletions(model, [file], given)))[0]!.tokenIds;
    };
    expect(await credit({})).toEqual([...last]);
    // As they were drawn, not as the text would be encoded.
    const letters = Array.from("It is 5.").flatMap((letter) => [...tokenizer.encode(letter)]);
    expect(await credit({ tokenIds: letters })).toEqual(letters);
    expect(letters).not.toEqual([...last.slice(0, -1)]);
    // Those of another text, or of another model, are no help.
    for (const tokenIds of [[...tokenizer.encode("It is 6.")], [1e6], [-1], ["5"], "5"]) {
      expect(await credit({ tokenIds })).toEqual([...last.slice(0, -1)]);
      expect(await credit({ tokenIds, finish: "stop" })).toEqual([...last]);
    }
  } finally {
    await disposeAsked(asked);
  }
});

test("what was read is not computed again for the next turn", async () => {
  const given = settings({
    environment: ({ turn }) => (turn < 4 ? "more of the same, and then some" : null),
    rollout: { maxTokens: 200, stopStrings: ["e", "a"] },
    reward: ({ turns }) => turns!.length,
    algorithm: "grpo",
  });
  let policy: EnginePolicy | undefined;
  const use: PrefixUse[] = [];
  await train(given, {
    async loadPolicy(directory) {
      policy ??= await loadPolicy(directory);
      return policy;
    },
    onStep: () => void policy!.prefixUse().then((told) => use.push(told)),
  });
  const samples = await all(readSamples(given.output));
  // Of each later turn the end of the turn before and the reply are new; all else lies in the cache.
  const read = samples.reduce((n, { mask }) => n + mask!.filter((drawn) => drawn === 0).length, 0);
  const turns = samples.reduce((n, { messages }) => n + (messages!.length + 1) / 2, 0);
  const prompts = new Map(samples.map(({ prompt }) => [prompt, tokenizer.encode(prompt).length]));
  const first = [...prompts.values()].reduce((a, b) => a + b, 0);
  expect(turns).toBeGreaterThan(2 * samples.length);
  expect(use[0]!.computedTokens).toBeLessThanOrEqual(first + read + turns);
  expect(use[0]!.bytes).toBe(0);
});

test.each([true, false])("what a caller keeps of a conversation's cache stays with it: %s", async (keepsPrefixes) => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-environment-kept-"));
  writeFileSync(join(folder, "once.mjs"), "export const respond = ({ turn }) => (turn === 1 ? 'Sure?' : null);");
  const environment = { type: "module", path: join(folder, "once.mjs") } as const;
  const asked = await openAsked(model, { environment, rollout: { maxTokens: 60, stopStrings: ["e", "a"] } });
  try {
    await asked.policy.keepPrefixes!();
    const prompt = promptOf(asked, [{ role: "user", content: "What is 3 + 2?" }], "0");
    const [rollout] = (await answers(asked, [prompt], { count: 1, temperature: 1, keepsPrefixes }).next()).value!;
    expect(rollout!.conversation!.turns).toBe(2);
    expect((await (asked.policy as EnginePolicy).prefixUse()).bytes > 0).toBe(keepsPrefixes);
  } finally {
    await disposeAsked(asked);
  }
});

describe("a conversation", () => {
  const environment: EnvironmentFunction = ({ turn, state }) =>
    turn < 3
      ? { messages: `more ${turn}`, state: [...((state as number[]) ?? []), turn], reward: turn }
      : { reward: 10, detail: { state } };

  test("has the log-probs of one sequence, bit for bit, whatever it was drawn in", async () => {
    const given = settings({
      environment: (turn) => (turn.turn < 3 ? `more ${turn.turn}` : null),
      rollout: { prompts: 2, count: 3, maxTokens: 120 },
      reward: ({ turns }) => turns!.length,
      // Whatever the random model says, its turn ends.
      steps: 1,
    });
    await train({ ...given, rollout: { ...given.rollout, stopStrings: ["e", "a", "t"] } });
    const samples = await all(readSamples(given.output));
    expect(Math.max(...samples.map(({ messages }) => messages!.length))).toBe(5);
    await using policy = await loadPolicy(model);
    for (const { prompt, tokenIds, logProbs, mask } of samples) {
      const [scored] = await policy.score([
        { prompt: tokenizer.encode(prompt), completion: Int32Array.from(tokenIds) },
      ]);
      for (const [t, drawn] of mask!.entries()) {
        expect(logProbs[t]).toBe(drawn === 1 ? Number(scored![t]!.toPrecision(7)) : 0);
      }
    }
  });

  test("is told to the environment as it is, and its rewards add up", async () => {
    const heard: Turn[] = [];
    const judged: Sample[] = [];
    const samples = await run(
      {
        environment: (turn, signal) => {
          heard.push(structuredClone(turn));
          return environment(turn, signal);
        },
        reward: [
          { verifier: "environment" },
          {
            verifier: (sample) => {
              judged.push(sample);
              return 1;
            },
            name: "own",
          },
        ],
      },
      (read) => `turn ${read.split("more").length}${END}`,
    );
    const first = heard.filter(({ id }) => id === "0#0");
    expect(first.map(({ turn, completion, raw, state }) => ({ turn, completion, raw, state }))).toEqual([
      { turn: 1, completion: "turn 1", raw: "turn 1", state: undefined },
      { turn: 2, completion: "turn 2", raw: "turn 2", state: [1] },
      { turn: 3, completion: "turn 3", raw: "turn 3", state: [1, 2] },
    ]);
    expect(first[2]!.messages.map(({ content }) => content)).toEqual([
      "What is 3 + 2?",
      "turn 1",
      "more 1",
      "turn 2",
      "more 2",
      "turn 3",
    ]);
    expect(samples[0]).toMatchObject({ reward: 14, detail: { state: [1, 2], environment: { reward: 13 } } });
    expect(judged[0]).toMatchObject({
      completion: "turn 3",
      turns: [{}, {}, {}, {}, { content: "turn 3" }],
      environment: { reward: 13, detail: { state: [1, 2] } },
    });
    expect(judged[0]!.prompt).toMatch(
      /turn 2<\|im_end\|>\n<\|im_start\|>user\nmore 2<\|im_end\|>\n<\|im_start\|>assistant\n$/,
    );
  });

  test("ends where there is no more room, or are no more turns", async () => {
    const script: Script = (read) => `turn ${read.split("more").length}${END}`;
    const [two] = await run({ environment, rollout: { turns: 2 } }, script);
    expect(two).toMatchObject({ completion: "turn 2", finish: "length" });
    // The reply to the last turn counts, though nobody reads it.
    const rewarded = await run({ environment, rollout: { turns: 2 }, reward: "environment" }, script);
    expect(rewarded[0]!.reward).toBe(3);
    const whole = (await run({ environment }, script))[0]!.tokenIds.length;
    for (const maxTokens of [whole, whole - 1, whole - 3, 40, 5]) {
      const [cut] = await run({ environment, rollout: { maxTokens } }, script);
      expect(cut!.finish).toBe(maxTokens === whole ? "stop" : "length");
      expect(cut!.tokenIds.length).toBeLessThanOrEqual(maxTokens);
      expect(cut!.mask!.at(-1)).toBe(1);
    }
  });

  test("that the environment could not answer is not judged, and others are", async () => {
    const samples = await run(
      {
        environment: ({ id }) => {
          if (id === "0#1") throw new Error("no game");
          return null;
        },
        reward: ({ completion }) => completion.length,
        rollout: { prompts: 1, count: 3 },
      },
      (_, sample) => `${"a".repeat(sample)}b${END}`,
    );
    expect(samples.map(({ reward, detail }) => [reward, detail.reason ?? null])).toEqual([
      [1, null],
      [null, "environment: error"],
      [3, null],
    ]);
    const failing =
      (ids: RegExp): EnvironmentFunction =>
      ({ id }) => {
        if (ids.test(id)) throw new Error("no game");
        return null;
      };
    await expect(run({ environment: failing(/./) })).rejects.toMatchObject({
      code: "ERR_RLSD_UNJUDGED",
      message: expect.stringMatching(
        /^The environment failed in all 4 conversations of step 1, so that none was judged\. The first: environment: error: Error: no game\. Once/,
      ),
    });
    await expect(run({ environment: failing(/#0$/), reward: () => null })).rejects.toThrow(
      /^The environment failed in 2 of the 4 conversations of step 1, and the verifier judged none of the other 2\. The first: /,
    );
    await expect(run({ environment: failing(/none/), reward: () => null })).rejects.toThrow(
      /^The verifier judged none of the 4 completions of step 1\. The first: undecided\./,
    );
  });

  test("goes on after an interruption, bit for bit", async () => {
    const o: TrainConfig = {
      environment: ({ turn }) => (turn < 3 ? "more" : null),
      reward: ({ turns, completion }) => turns!.length + (completion.length % 3),
      rollout: { count: 4, maxTokens: 80, stopStrings: ["e", "a"] },
      optimizer: { learningRate: 1e-3 },
      steps: 4,
      checkpoint: { every: 1 },
    };
    const whole = settings(o);
    await train(whole);
    const cut = settings({ ...o, data: whole.data });
    const stop = new AbortController();
    const first = await train(cut, { signal: stop.signal, onStep: ({ step }) => step === 2 && stop.abort() });
    expect(first.stopped).toBe("interrupted");
    await train(cut, { resume: cut.output });
    const traceOf = async ({ output }: { output: string }) => [
      (await all(readMetrics(output))).map(({ time, ...rest }) => rest),
      await all(readSamples(output)),
    ];
    expect(await traceOf(cut)).toEqual(await traceOf(whole));
  });
});

test.each<[TrainConfig, TrainConfig, RegExp]>([
  [
    { environment: () => null },
    {},
    /"environment" of this run was "\(function\)", and is not given: give it again, or null/,
  ],
  [{ environment: { type: "tools", tools } }, {}, /"environment" of this run was \{"type":"tools".*or null/],
  [{}, { reward: undefined }, /"reward" of this run was "\(function\)", and is not given: give it again, or another/],
  [
    { reward: [{ verifier: () => 1 }] },
    { reward: undefined },
    /"reward" of this run was \[\{"verifier":"\(function\)"\}\]/,
  ],
])("a run that began with %j does not go on without it, but where that is said", async (began, without, message) => {
  const given = settings({ ...began, steps: 1 });
  const loaded = { loadPolicy: (directory: string) => scripted(directory, calling) as never };
  await train(given, loaded);
  const files = () => readdirSync(given.output, { recursive: true }).sort();
  const before = files();
  const { environment: _, ...rest } = given;
  const on = { ...rest, ...without, steps: 2 };
  await expect(train(on, { ...loaded, resume: given.output })).rejects.toMatchObject({
    code: "ERR_RLSD_CONFIG",
    message: expect.stringMatching(message),
  });
  expect(files()).toEqual(before);
  const told = { environment: null, reward: "numeric", ...on, ...("reward" in without && { reward: "numeric" }) };
  expect(await train(told as TrainConfig, { ...loaded, resume: given.output })).toMatchObject({ step: 2 });
});

describe("an evaluation", () => {
  test("talks to the environment too, and keeps what was said", async () => {
    const file = join(mkdtempSync(join(tmpdir(), "rlsd-environment-tools-")), "tools.mjs");
    writeFileSync(
      file,
      `export const add = { description: "Adds.", parameters: ${JSON.stringify(tools.add.parameters)}, call: ({ a, b }) => a + b };`,
    );
    const output = join(mkdtempSync(join(tmpdir(), "rlsd-environment-eval-")), "eval");
    const o: TrainConfig = {
      environment: { type: "tools", path: file },
      rollout: { maxTokens: 200 },
      eval: { samples: 2 },
      reward: ({ completion, row }) => completion.includes(String(row.answer)),
      data: settings().data!,
    };
    const loaded = { loadPolicy: (directory: string) => scripted(directory, calling) as never };
    const { metrics } = await evaluateModel(model, [rowsFile([question(3), question(4)])], output, o, loaded);
    expect(metrics).toMatchObject({ accuracy: 0.5, "avg@2": 0.5, turns: 2 });
    const lines = [];
    for await (const bytes of fileLines(join(output, "predictions.jsonl")))
      lines.push(JSON.parse(bytes.toString("utf8")));
    expect(lines[0]).toMatchObject({
      completion: "It is 5.",
      messages: [{ tool_calls: [{}] }, { content: "5" }, { content: "It is 5." }],
    });
  });
});

describe("what cannot be", () => {
  const tooled = { environment: { type: "tools", tools } } as const;
  test.each<[TrainConfig, RegExp]>([
    [{ reward: "environment" }, /"reward" is what an environment gives, but "environment" names none/],
    [{ reward: [{ verifier: "math" }, { verifier: { type: "environment" } }] }, /"environment" names none/],
    [{ ...tooled, reward: "environment" }, /tools give none: name a verifier/],
    [
      { environment: { type: "tool" } as never },
      /"environment": There is no environment "tool"\. Did you mean "tools"\?/,
    ],
    [{ environment: "tools" as never }, /"environment": Expected a function/],
    // As a run's folder has what was code.
    [{ environment: "(function)" as never }, /"environment" came from code, which a run does not keep: give it again/],
    [
      {
        environment: JSON.parse(
          JSON.stringify({ type: "tools", tools: { add: { ...tools.add, call: "(function)" } } }),
        ),
      },
      /"environment" came from code/,
    ],
    [{ reward: "(function)" }, /"reward" came from code/],
    [{ reward: [{ verifier: "(verifier)" }] }, /"reward" came from code/],
    [{ rollout: { turns: 0 } }, /an integer of at least 1 for "rollout.turns"/],
  ])("%#", async (o, message) => {
    await expect(train(settings(o))).rejects.toThrow(message);
  });

  test("turns of a conversation with nobody, of a run or of a model that is asked", async () => {
    const message = /"rollout\.turns" has no effect without "environment", which is not given/;
    await expect(train(settings({ rollout: { turns: 3 } }))).rejects.toThrow(message);
    await expect(openAsked(model, { rollout: { turns: 3 } })).rejects.toThrow(message);
    await disposeAsked(await openAsked(model, { rollout: { turns: 3 }, environment: null }));
  });

  test("a model whose template has no calls", async () => {
    const printed = await talkingModel("printed");
    await expect(train(settings({ ...tooled, model: printed }))).rejects.toThrow(
      /^"environment": a conversation cannot be written in the words of this model: the model.s chat template leaves out [^:]*$/,
    );
  });
});
