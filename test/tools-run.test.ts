import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, creditCompletions, evaluateModel, type Sample } from "../lib/index.js";
import { createPrivilegedBlock } from "../lib/prompt/privileged.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { teacherPrompts } from "../lib/trainer/evidence.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { promptsIn } from "../lib/trainer/generate-run.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { sampleJson } from "../lib/verifiers/sample-json.js";
import { TINY } from "./support/small-policy.js";
import {
  ask,
  call,
  conversations,
  readFixture,
  result,
  rowsFile,
  TOKENIZER,
  template,
  tokenizer,
  toolsOf,
  weather,
} from "./support/tools.js";

describe("a run on rows with tools", () => {
  /** A random model that reads turns as that template writes them. */
  async function settings(rows: readonly unknown[], o: TrainConfig, template = "tagged"): Promise<TrainConfig> {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-tools-run-"));
    const files = {
      "tokenizer.json": TOKENIZER,
      "tokenizer_config.json": '{"eos_token": "<|im_end|>"}',
      "chat_template.jinja": readFixture(`tools/${template}.jinja`),
    };
    const config = {
      ...TINY,
      vocabSize: tokenizer.size,
      maxLength: 1024,
      endTokenIds: [tokenizer.idOf("<|im_end|>")!],
    };
    await using policy = await createPolicy(config, { files, seed: 3 });
    await policy.save(join(folder, "model"));
    const run = { model: join(folder, "model"), output: join(folder, "run"), data: { train: [rowsFile(rows)] } };
    return { ...run, steps: 2, log: { samples: 100 }, ...o };
  }

  test("is trained, evaluated, credited and asked with integers beyond 2^53 in calls, which verifiers see as texts", async () => {
    const { messages, tools = [] } = conversations["integers beyond 2^53"]!;
    const rows = [0, 1].map((i) => ({ messages, tools, answer: `${i}`, id: `r${i}` }));
    const seen: unknown[] = [];
    const reward = (sample: Sample) => {
      seen.push(sample.messages?.[1]?.tool_calls?.[0]?.function.arguments.id);
      expect(JSON.parse(sampleJson(sample)).messages).toEqual(sample.messages);
      return (sample.completion.length % 3) / 2;
    };
    const o = await settings(rows, { rollout: { prompts: 2, count: 2, maxTokens: 4 }, reward, steps: 1 });
    const calls =
      "{% for m in messages %}{% for c in m.tool_calls or [] %} {{ c.function.arguments.id }}{% endfor %}{% endfor %}";
    const privileged = { template: `{{ content }} {{ privileged }}${calls}` };
    expect((await dryRun({ ...o, privileged })).asked.teacher).toContain("0 12345678901234567890 9007199254740992");
    await train({ ...o, privileged });
    const file = rowsFile(rows);
    const evaluated = await evaluateModel(o.model!, [file], join(o.output!, "..", "eval"), { ...o, output: undefined });
    expect(evaluated.skipped).toBe(0);
    expect(new Set(seen)).toEqual(new Set(["12345678901234567890"]));
    const answered = rowsFile(rows.map((row) => ({ ...row, completion: "none" })));
    const lines = [];
    for await (const { prompt } of creditCompletions(o.model!, [answered], { ...o, output: undefined }))
      lines.push(prompt);
    expect(lines).toEqual(rows.map(() => expect.stringContaining('"id": 12345678901234567890,')));
  });

  test("draws single turns after calls and results, and its teacher is shown the tools too", async () => {
    const rows = [
      { messages: [ask, call, result], tools: [weather], answer: "3", trace: "It is 3." },
      { messages: [ask], tools: [weather], answer: "3", trace: [{ ...call, content: null }] },
      { messages: [ask], answer: "3", trace: "It is 3." },
    ];
    const o = await settings(rows, {
      rollout: { prompts: 3, count: 2, maxTokens: 8 },
      reward: ({ completion, messages }) => (completion.length + messages!.length) % 7,
      privileged: { template: "{{ content }} {{ privileged }}" },
    });
    const { asked, columns, privileged } = await dryRun(o);
    expect(columns.train).toMatchObject({ messages: "messages", tools: "tools" });
    expect(asked.student).toMatch(
      /^<\|im_start\|>system\nTools:.*"name": "weather".*<tool_call>.*<tool_response>\n3\n/s,
    );
    expect(asked.teacher).toBe(asked.student.replace("Bern?<", "Bern? It is 3.<"));
    expect(privileged).toMatchObject({ whole: 3 });
    await train(o);
    const seen = [];
    for await (const { step, teacherTokens, gradientNorm } of readMetrics(o.output!))
      seen.push([step, teacherTokens, gradientNorm]);
    expect(seen).toHaveLength(2);
  });

  test("a step shows the teacher what the plan does", () => {
    const prompter = createPrompter(tokenizer, template("tagged"));
    const tools = toolsOf([weather]);
    const example = {
      id: "0",
      where: "f:1",
      messages: [ask, call, result],
      tools,
      answer: null,
      trace: "It is 3.",
      reply: null,
      document: null,
      row: {},
    };
    const prompt = { example, ...prompter.prompt(example.messages, tools) };
    const rollout = {
      id: "0#0",
      group: 0,
      prompt,
      tokenIds: Int32Array.of(5),
      logProbs: new Float32Array(1),
      finish: "stop" as const,
      text: "3",
    };
    const block = createPrivilegedBlock("{{ content }} {{ privileged }}");
    const config = resolveConfig({ model: "m", data: { train: ["d.jsonl"] } });
    const verdicts = [{ reward: 1, detail: {} }];
    const { prompts } = teacherPrompts({ maxLength: 1024 }, [rollout], verdicts, Float32Array.of(1), {
      config,
      block,
      prompter,
    });
    expect(tokenizer.decode(prompts[0]!.ids)).toBe(prompt.text.replace("Bern?<", "Bern? It is 3.<"));
  });

  test("is refused where the model's template has no tools, unless they are no part of the task", async () => {
    const rows = [{ question: "Clock at 2, then + 8.", answer: "10", trace: "2 + 8 = 10", tools: [weather] }];
    const plan = (o: TrainConfig = {}) =>
      dryRun({ ...exampleSettings(), ...o, data: { train: [rowsFile(rows)], ...o.data } });
    await expect(plan()).rejects.toThrow(/rows\.jsonl:1: the model's chat template leaves out tool 1 \(weather\): /);
    const { rows: counted, columns } = await plan({ data: { fields: { tools: "" } } });
    expect([counted.train, columns.train?.tools]).toEqual([1, null]);
  });

  test("is refused where the template would have a call learned as nothing", async () => {
    const rows = [{ messages: [ask, call], tools: [weather] }];
    const plan = dryRun(await settings(rows, { algorithm: "sft" }, "printed"));
    await expect(plan).rejects.toThrow(/rows\.jsonl:1: .* leaves out the call of weather in message 2: /);
  });

  test("credit takes completions of one prompt apart where the tools differ", async () => {
    const row = (name: string) => ({
      messages: [ask],
      tools: [{ name }],
      completion: "It is 3.",
      reward: 1,
      trace: "3",
    });
    const { model } = await settings([], {});
    const groups = [];
    const files = [rowsFile([row("weather"), row("clock"), row("weather")])];
    for await (const { group, id } of creditCompletions(model!, files)) groups.push([id, group]);
    expect(groups).toEqual([
      ["0#0", 0],
      ["2#1", 0],
      ["1#0", 1],
    ]);
  });

  test("sft learns a turn that calls, and the model says it then", async () => {
    const rows = [{ messages: [ask, { ...call, content: null }], tools: [weather] }];
    const o = await settings(rows, {
      algorithm: "sft",
      steps: 200,
      rollout: { prompts: 1, maxTokens: 100 },
      optimizer: { learningRate: 1e-2 },
      eval: { every: 0, atStart: false },
    });
    const { asked } = await dryRun(o);
    expect(asked.demonstration).toBe(
      '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>',
    );
    await train(o);
    const { openAsked, answers } = await import("../lib/trainer/generate-run.js");
    const model = await openAsked(o.output!, {});
    try {
      const { prompts } = await promptsIn(model, [rowsFile(rows)], 0);
      const drawn = [];
      for await (const some of answers(model, prompts, { count: 1, temperature: 0 })) drawn.push(...some);
      expect(drawn[0]).toMatchObject({ text: asked.demonstration!.replace("<|im_end|>", ""), finish: "stop" });
    } finally {
      await model.policy.dispose();
    }
  });
});
