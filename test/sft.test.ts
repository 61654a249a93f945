import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reportRun } from "../lib/cli/report-run.js";
import { rowCoefficient } from "../lib/objectives/presets.js";
import { loadPolicy } from "../lib/policy/load.js";
import { createTokenizer } from "../lib/policy/tokenizer.js";
import { createChatTemplate } from "../lib/prompt/chat-template.js";
import { demonstration } from "../lib/prompt/demonstration.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { evaluateModel } from "../lib/trainer/eval-run.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { readRunConfig, type SampleLine } from "../lib/trainer/run-folder.js";
import { readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { fewRows } from "./support/clock-task.js";
import { metricsOf, weightsOf } from "./support/run-files.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const tokenizer = createTokenizer(
  readFileSync(join(__dirname, "fixtures/models/tokenizer-bpe/tokenizer.json"), "utf8"),
);
const idOf = (token: string) => tokenizer.idOf(token)!;
const END = idOf("<|im_end|>");

const folderOf = (name: string) => mkdtempSync(join(tmpdir(), `rlsd-sft-${name}-`));

function rowsFile(rows: readonly unknown[]): string {
  const file = join(folderOf("rows"), "rows.jsonl");
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  return file;
}

const TURNS =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n";

describe("a demonstration", () => {
  const asked = [{ role: "user", content: "two and two" }];
  const shown = (source: string | undefined, reply: string, ends: readonly number[] = [END]) => {
    const prompter = createPrompter(tokenizer, source === undefined ? undefined : createChatTemplate(source));
    const prompt = prompter.prompt(asked);
    const { ids } = demonstration(
      prompter,
      prompt,
      { messages: asked, reply: { role: "assistant", content: reply } },
      ends,
    );
    return { text: tokenizer.decode(ids), ids, prompt };
  };

  test("is the assistant's turn as the template writes it, up to its end token", () => {
    const { text, ids, prompt } = shown(`${TURNS}{% endif %}`, "four\n\nAnswer: 4");
    expect(text).toBe("four\n\nAnswer: 4<|im_end|>");
    // What the model draws after the prompt, and what it was trained to read, are the same ids.
    const whole = tokenizer.encode(`${prompt.text}four\n\nAnswer: 4<|im_end|>`);
    expect([...prompt.ids, ...ids]).toEqual([...whole]);
  });

  test("has what the template puts in front of a reply without thoughts", () => {
    const template =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}" +
      "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    expect(shown(template, "four").text).toBe("<think>\n\n</think>\n\nfour<|im_end|>");
  });

  const OPENING =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

  test("keeps the thought that a template leaves out of earlier turns, behind the tag that the prompt has opened", () => {
    for (const reply of ["<think>\ntwo, two\n</think>\nfour", "two, two\n</think>\nfour"]) {
      expect(shown(OPENING, reply).text).toBe("two, two\n</think>\nfour<|im_end|>");
    }
  });

  test("must close a thought that the prompt opens", () => {
    expect(() => shown(OPENING, "four")).toThrow(/ends with <think>, which the trace never closes.*enable_thinking/);
  });

  test("ends in the likeliest end token where nothing in it ends it, and only there", () => {
    const pad = idOf("<|endoftext|>") ?? END;
    expect(shown(undefined, "four", [pad, END]).ids.at(-1)).toBe(pad);
    expect(shown(undefined, "four<|im_end|>five", [pad, END]).text).toBe("four<|im_end|>");
    expect(shown(undefined, "four", []).text).toBe("four");
  });

  test("of nothing is refused", () => {
    expect(() => shown(`${TURNS}{% endif %}`, " ")).toThrow("the trace has no tokens");
  });
});

const few = fewRows(folderOf("rows"));

/** The built-in example with fewer rows, in a folder of its own where none is given. */
const example = (o: TrainConfig = {}) => ({
  ...exampleSettings(),
  algorithm: "sft" as const,
  steps: 4,
  data: { ...exampleSettings().data, train: [few] },
  ...o,
  output: o.output ?? join(folderOf("run"), "run"),
  eval: { every: 0, limit: 20, ...o.eval },
});

describe("supervised fine-tuning", () => {
  test("is cross-entropy over the traces' tokens: the weights of a step by hand, however it is cut", async () => {
    const settings = example({ steps: 1, data: { ...exampleSettings().data, shuffle: false } });
    const { checkpoint } = await train(settings);
    const rows = readFileSync(settings.data!.train![0]!, "utf8").split("\n").slice(0, 8);
    await using policy = await loadPolicy(settings.model!);
    const sequences = rows.map((row) => {
      const { question, trace } = JSON.parse(row) as Record<string, string>;
      return {
        prompt: policy.tokenizer!.encode(`<|user|>${question}<|assistant|>`),
        completion: policy.tokenizer!.encode(`${trace}<|end|>`),
      };
    });
    const tokens = sequences.reduce((n, { completion }) => n + completion.length, 0);
    const advantages = new Float32Array(tokens).fill(-1 / tokens);
    const { loss } = await policy.accumulate({ sequences, advantages }, rowCoefficient());
    await policy.step({ learningRate: 2e-4 / 10, weightDecay: 0 });
    const byHand = join(folderOf("hand"), "model");
    await policy.save(byHand);
    expect(weightsOf(checkpoint).equals(readFileSync(join(byHand, "model.safetensors")))).toBe(true);

    const [line] = await metricsOf(settings.output, "train");
    expect(line).toMatchObject({ loss, tokens, length: tokens / 8, updates: 1 });
    const cut = example({ ...settings, output: join(folderOf("cut"), "run"), update: { microbatchTokens: 50 } });
    await train(cut);
    const [again] = await metricsOf(cut.output, "train");
    expect(again!.loss).toBeCloseTo(loss, 6);
    expect(again!.gradientNorm).toBeCloseTo(line!.gradientNorm as number, 5);
  });

  test("needs no group: the number of completions of a prompt changes nothing", async () => {
    const [one, many] = [1, 8].map((count) => example({ steps: 1, rollout: { ...exampleSettings().rollout, count } }));
    expect(weightsOf((await train(one!)).checkpoint).equals(weightsOf((await train(many!)).checkpoint))).toBe(true);
  });

  test("teaches the built-in example what rollouts teach it slowly, with the loss of held-out traces", async () => {
    const settings = example({ steps: 30, eval: { every: 15, limit: 60 } });
    const { accuracy } = await train(settings);
    expect(accuracy!.last).toBeGreaterThan(0.9);
    const held = await metricsOf(settings.output, "eval");
    expect(held.map(({ step }) => step)).toEqual([0, 15, 30]);
    const losses = held.map(({ loss }) => loss as number);
    expect(losses[1]).toBeLessThan(losses[0]! / 2);
    expect(losses[2]).toBeLessThan(losses[1]!);
    // Steps draw nothing, so nothing of it is told.
    for (const line of await metricsOf(settings.output, "train")) {
      expect(Object.keys(line)).not.toEqual(expect.arrayContaining(["reward"]));
      expect(line).not.toHaveProperty("ratioMean");
    }
  });

  test("logs what the model answers at evaluations, for the report, and no more than it is asked to", async () => {
    const settings = example({ steps: 20, eval: { every: 10, limit: 20, samples: 1 }, log: { samples: 3 } });
    await train(settings);
    const samples: SampleLine[] = [];
    for await (const sample of readSamples(settings.output)) samples.push(sample);
    const places = [0, 10, 20].flatMap((step) => [0, 1, 2].map((group) => ({ step, group, heldOut: true })));
    expect(samples).toMatchObject(places);
    const [row] = readFileSync(settings.data!.eval![0]!, "utf8").split("\n");
    const { id, question } = JSON.parse(row!) as Record<string, string>;
    expect(samples[6]).toMatchObject({
      id: `${id}#0`,
      prompt: `<|user|>${question}<|assistant|>`,
      completion: expect.stringMatching(/\nAnswer: \d+$/),
      advantage: 0,
      teacherLogProbs: [],
      tokenAdvantages: samples[6]!.tokenIds.map(() => 0),
    });
    const { report } = await reportRun(settings.output);
    const page = readFileSync(report, "utf8");
    expect(page).toContain("<h2>Answers to held-out rows</h2>");
    expect(page).toContain("9 of 9 completions: of evaluations spread over the run those to the first rows.");
    expect(page).not.toContain("Credit, token");
    expect(page).not.toContain('id="by-side"');
    const silent = example({ steps: 1, log: { samples: 0 } });
    await train(silent);
    expect(readFileSync(join(silent.output, "samples.jsonl"), "utf8")).toBe("");
  });

  test("goes on from a checkpoint to the same bits", async () => {
    const straight = await train(example({ steps: 4 }));
    const output = join(folderOf("resumed"), "run");
    await train(example({ steps: 2, output }));
    const resumed = await train(example({ steps: 4, output }), { resume: output });
    expect(weightsOf(resumed.checkpoint).equals(weightsOf(straight.checkpoint))).toBe(true);
    expect(resumed.tokens).toBe(straight.tokens);
  });

  test("trains adapters too, and a run or a checkpoint is a model for the next", async () => {
    const first = example({ lora: { rank: 4 }, optimizer: { learningRate: 2e-3 }, steps: 20 });
    const { checkpoint } = await train(first);
    for (const model of [first.output, checkpoint]) {
      const next = example({ algorithm: "rlsd", model, steps: 1 });
      const { accuracy } = await train(next);
      expect(accuracy!.first).toBeGreaterThan(0.7);
      const { config } = await readRunConfig(next.output);
      expect(config.model).toBe(join(checkpoint, "model"));
    }
    const asked = { data: { eval: first.data!.eval! }, eval: { limit: 20 } };
    const { metrics } = await evaluateModel(first.output, [], join(folderOf("eval"), "out"), asked);
    expect(metrics.accuracy).toBeGreaterThan(0.7);
  });

  test("asks no teacher, draws for evaluations alone, and needs no verdict on what it learns", async () => {
    const { settings } = tinyTask();
    const file = rowsFile([
      { question: "say a", trace: "aa" },
      { question: "say b", trace: "bb" },
    ]);
    let policy: TinyPolicy | undefined;
    const loadOnce = async (directory: string) => {
      policy = await TinyPolicy.load(directory);
      return policy;
    };
    const data = { train: [file] };
    await train({ ...settings, algorithm: "sft", reward: "numeric", data }, { loadPolicy: loadOnce });
    expect(policy!.probe).toMatchObject({ generated: 0, scored: 0, accumulated: 18 });
  });
});

describe("the rows of supervised fine-tuning", () => {
  const planned = (rows: readonly unknown[], o: TrainConfig = {}) =>
    dryRun(example({ data: { train: [rowsFile(rows)], eval: [] }, ...o }));
  const QUESTION = "Clock at 2, then + 8.";

  test("are learned from a trace, a completion, or the assistant's own turn", async () => {
    const said = { role: "assistant", content: "2 + 8 = 10" };
    const rows = [
      { question: QUESTION, trace: "2 + 8 = 10" },
      { question: QUESTION, answer: "10", solution: "2 + 8 = 10" },
      { prompt: QUESTION, completion: "2 + 8 = 10" },
      { prompt: [{ role: "user", content: QUESTION }], completion: [said] },
      { instruction: QUESTION, response: "2 + 8 = 10" },
      { messages: [{ role: "user", content: QUESTION }, said] },
    ];
    for (const row of rows) {
      const plan = await planned([row]);
      expect(plan.asked).toEqual({
        student: `<|user|>${QUESTION}<|assistant|>`,
        teacher: null,
        demonstration: "2 + 8 = 10<|end|>",
      });
    }
  });

  test("that bring none, or are too long, are named with what mends them", async () => {
    const long = { question: QUESTION, trace: "2 + 8 = 10 ".repeat(40) };
    const rows = [{ question: QUESTION, answer: "10" }, long, { question: QUESTION, trace: "10" }];
    const refused = planned(rows);
    await expect(refused).rejects.toMatchObject({ code: "ERR_RLSD_DATA" });
    await expect(refused).rejects.toThrow(/2 of 3 rows.*rows.jsonl:1: there is no trace.*data.fields.trace=COLUMN/s);
    await expect(refused).rejects.toThrow(/rows.jsonl:2: prompt and trace have \d+ tokens, but the model reads 128/);
    const { rows: counted } = await planned(rows, {
      data: { train: [rowsFile(rows)], eval: [], invalid: "skip" },
    });
    expect(counted).toEqual({ train: 1, eval: 0, leftOut: 2 });
  });

  test("are planned: their lengths, the largest step, and no memory for what is not drawn", async () => {
    const plan = await planned([
      { question: QUESTION, trace: "2 + 8 = 10" },
      { question: QUESTION, trace: "2 + 8 = 10 + 1 = 11" },
    ]);
    const longest = plan.promptTokens.max + plan.traceTokens!.max;
    expect(plan).toMatchObject({ sequencesPerStep: 8, tokensPerStep: 8 * longest });
    expect(plan.memory.keyValueCache).toBe(0);
    const text = dryRunText(plan);
    expect(text).toMatch(/^traces {5}\d+ to \d+ .*\nstep {7}8 rows with their traces: at most \d+ tokens$/m);
    expect(text).toMatch(/^teacher {4}none$/m);
    expect(text).toMatch(/what the model learns to say then:\n {2}\| 2 \+ 8 = 10<\|end\|>$/);
  });
});
