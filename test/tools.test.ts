import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, creditCompletions } from "../lib/index.js";
import { createTokenizer } from "../lib/policy/tokenizer.js";
import { chatTemplateIn, createChatTemplate } from "../lib/prompt/chat-template.js";
import { demonstration } from "../lib/prompt/demonstration.js";
import { type ChatMessage, type ToolCall, turnText } from "../lib/prompt/messages.js";
import { createPrivilegedBlock } from "../lib/prompt/privileged.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { turnImitations } from "../lib/prompt/turns.js";
import { resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { toConversation } from "../lib/trainer/data/conversation.js";
import { loadDataset } from "../lib/trainer/data/dataset.js";
import { toTools } from "../lib/trainer/data/tools.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { teacherPrompts } from "../lib/trainer/evidence.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { promptsIn } from "../lib/trainer/generate-run.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { TINY } from "./support/small-policy.js";

const fixtures = join(__dirname, "fixtures");
const read = (...path: string[]) => readFileSync(join(fixtures, ...path), "utf8");
const TOKENIZER = read("models/tokenizer-bpe/tokenizer.json");
const tokenizer = createTokenizer(TOKENIZER);

interface Given {
  readonly messages: readonly unknown[];
  readonly tools?: readonly unknown[];
}
const conversations = JSON.parse(read("tools/conversations.json")) as Record<string, Given>;
type Rendered = string | { readonly error: string };
const expected = JSON.parse(read("tools/expected.json")) as Record<string, Record<string, [Rendered, Rendered]>>;
const template = (name: string) => createChatTemplate(read("tools", `${name}.jinja`), { bos_token: "<s>" });

/** All messages of a conversation, as a template is given them. */
function messagesOf(given: readonly unknown[]): readonly ChatMessage[] {
  const read = toConversation(given, "messages");
  if (typeof read === "string") throw new Error(read);
  return read.reply === null ? read.messages : [...read.messages, read.reply];
}

const toolsOf = (given: unknown) => {
  const tools = toTools(given);
  if (typeof tools === "string") throw new Error(tools);
  return tools;
};

const [weather] = conversations.tools!.tools as [{ function: object }];
const ask = { role: "user", content: "The weather in Bern?" };
const call: ChatMessage & { readonly tool_calls: readonly ToolCall[] } = {
  role: "assistant",
  content: "",
  tool_calls: [{ type: "function", function: { name: "weather", arguments: { city: "Bern" } } }],
};
const result = { role: "tool", content: "3" };

function rowsFile(rows: readonly unknown[]): string {
  const file = join(mkdtempSync(join(tmpdir(), "rlsd-tools-")), "rows.jsonl");
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  return file;
}

describe("tools, calls and results are rendered as by transformers", () => {
  const cases = Object.entries(expected).flatMap(([name, all]) =>
    Object.entries(all).map(([conversation, texts]) => [name, conversation, texts] as const),
  );
  test.each(cases)("%s: %s", (name, conversation, texts) => {
    const { messages, tools } = conversations[conversation]!;
    for (const [i, text] of texts.entries()) {
      const render = () =>
        template(name).render(messagesOf(messages), { tools: toolsOf(tools), addGenerationPrompt: i === 0 });
      if (typeof text === "string") expect(render()).toBe(text);
      else expect(render).toThrow(text.error);
    }
  });

  test("by a template for tools, where the configuration has one of its own", () => {
    const named = [
      { name: "default", template: "plain" },
      { name: "tool_use", template: "{{ tools | length }} tools" },
    ];
    const files = new Map([["tokenizer_config.json", Buffer.from(JSON.stringify({ chat_template: named }))]]);
    const both = chatTemplateIn(files, "model");
    const tools = toolsOf([weather]);
    expect([both?.render([ask]), both?.render([ask], { tools: [] }), both?.render([ask], { tools })]).toEqual([
      "plain",
      "plain",
      "1 tools",
    ]);
  });

  test("the filter string writes values as Python does", () => {
    const variables = { values: [null, true, 2, 0.5, "it's", { a: ["\u00e9", 'b"', "'\"\\\u0007\u{e0001}"] }] };
    const source = "{% for v in values %}{{ v | string }};{% endfor %}{{ none_such | string }}";
    expect(createChatTemplate(source).render([], { variables })).toBe(
      `None;True;2;0.5;it's;{'a': ['\u00e9', 'b"', '\\'"\\\\\\x07\\U000e0001']};`,
    );
  });
});

describe("rows with tools", () => {
  const one = async (row: object) => {
    const { examples, problems, fields } = await loadDataset([rowsFile([row])]);
    return { ...examples[0], problem: problems[0]?.problem, column: fields?.tools };
  };

  test("have them as OpenAI, ms-swift and LLaMA-Factory write them, or as the JSON of that", async () => {
    const schema = weather.function;
    for (const tools of [[weather], [schema], [{ type: "function", ...schema }], JSON.stringify([schema])]) {
      const { tools: had, column } = await one({ prompt: "q", tools });
      expect([had, column]).toEqual([[weather], "tools"]);
    }
    for (const tools of [null, [], "", ["hammer"], "a saw", 7]) {
      expect(await one({ prompt: "q", tools })).toMatchObject({ tools: [], column: null });
    }
    const named = await loadDataset([rowsFile([{ prompt: "q", mine: [schema] }])], { fields: { tools: "mine" } });
    expect(named.examples[0]?.tools).toEqual([weather]);
  });

  test("have calls and results by every name, and a call is one thing whatever it is written as", async () => {
    const json = '{"name": "weather", "arguments": {"city": "Bern"}}';
    const shapes: object[][] = [
      [ask, { ...call, content: null }, result],
      [ask, { role: "assistant", tool_calls: [{ name: "weather", arguments: '{"city": "Bern"}' }] }, result],
      [
        ask,
        { role: "assistant", content: null, function_call: { name: "weather", arguments: { city: "Bern" } } },
        { ...result, role: "function" },
      ],
      [ask, { role: "tool_call", content: json }, { role: "tool_response", content: "3" }],
      [
        { from: "human", value: ask.content },
        { from: "function_call", value: json },
        { from: "observation", value: "3" },
      ],
    ];
    for (const messages of shapes) {
      expect(await one({ messages })).toMatchObject({ messages: [ask, call, result], reply: null, problem: undefined });
    }
    const apart = await one({
      messages: [
        ask,
        { role: "assistant", content: "I look." },
        { role: "tool_call", content: json },
        { role: "tool_call", content: json },
      ],
    });
    const both = { role: "assistant", content: "I look.", tool_calls: [...call.tool_calls, ...call.tool_calls] };
    expect(apart.reply).toEqual(both);
    const line = '{"name":"weather","arguments":{"city":"Bern"}}';
    expect([apart.trace, turnText(both as ChatMessage)]).toEqual([`I look.\n${line}\n${line}`, apart.trace]);
    const empty = await one({
      messages: [
        ask,
        { role: "assistant", tool_calls: [{ id: "c", function: { name: "now", arguments: "" } }] },
        result,
      ],
    });
    expect(empty.messages?.[1]?.tool_calls).toEqual([
      { id: "c", type: "function", function: { name: "now", arguments: {} } },
    ]);
  });

  test("of a Parquet file lack what is null there: arguments of other rows' calls", async () => {
    const { examples } = await loadDataset([join(fixtures, "data/tools.parquet")]);
    const parameter = (tool: unknown) =>
      (tool as { function: { parameters: { properties: object } } }).function.parameters.properties;
    expect(
      examples.map(({ reply, tools, row }) => [reply?.tool_calls?.[0]?.function, ...tools.map(parameter), row.answer]),
    ).toEqual([
      [{ name: "weather", arguments: { city: "Bern" } }, { city: { type: "string" } }, null],
      [{ name: "add", arguments: { a: 1 } }, { a: { type: "integer" } }, "1"],
    ]);
  });

  const calling = (tool_calls: unknown) => ({ messages: [ask, { role: "assistant", content: null, tool_calls }] });
  const refused: [string, object, string][] = [
    [
      "a call without a name",
      calling([{ function: { arguments: {} } }]),
      "message 2 has a tool call (1) without the name",
    ],
    [
      "arguments in other words",
      calling([{ name: "f", arguments: "x=1" }]),
      "message 2 has arguments of tool call 1 (f) that are no JSON object",
    ],
    ["arguments that are a list", calling([{ name: "f", arguments: "[1]" }]), "(f) that are no JSON object"],
    ["neither a text nor a call", calling([]), 'message 2 has no "role" and "content" that are texts'],
    ["a result that is no text", { messages: [ask, call, { role: "tool", content: { a: 1 } }] }, "message 3 has no"],
    ["a trace with results", { prompt: "q", trace: [call, result, call] }, "turns of the assistant alone, not of tool"],
  ];
  test.each(refused)("%s is refused by its place", async (_, row, problem) => {
    expect((await one(row)).problem).toContain(problem);
  });

  test("have tools without a name refused, where others have them", async () => {
    const wrong = [{ type: "function" }, "hammer"].map((tool) => ({ prompt: "q", tools: [weather, tool] }));
    const { problems } = await loadDataset([
      rowsFile([{ prompt: "q", tools: [weather] }, ...wrong, { prompt: "q", tools: 7 }]),
    ]);
    const second = 'column "tools": tool 2 is no {type, function: {name, ...}}';
    expect(problems.map(({ problem }) => problem)).toEqual([
      second,
      second,
      'column "tools": expected a list of tools, or its JSON',
    ]);
  });

  test("are refused where the model would not be shown what they say", () => {
    const prompter = (name: string) => createPrompter(tokenizer, template(name));
    const tools = toolsOf([weather]);
    for (const name of ["tagged", "headed"])
      expect(() => prompter(name).checkTools([ask, call, result], tools)).not.toThrow();
    expect(() => prompter("printed").checkTools([ask], tools)).not.toThrow();
    expect(() => prompter("printed").checkTools([ask, call, result], tools)).toThrow(
      /template leaves out the call of weather in message 2: write what it should say into the contents.* data\.fields\.tools to ""/,
    );
    const source =
      "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}{% endfor %}";
    const joined = createPrompter(tokenizer, createChatTemplate(source));
    expect(() => joined.checkTools([ask, call], [])).toThrow(
      "leaves out arguments of the call of weather in message 2",
    );
    expect(() => joined.checkTools([ask], tools)).toThrow("leaves out tool 1 (weather)");
    const mute = createPrompter(tokenizer, createChatTemplate("{{ messages[0].content }}"));
    expect(() => mute.checkTools([ask, result], [])).toThrow("leaves out message 2, a tool's result");
    const base = createPrompter(tokenizer, undefined);
    expect(() => base.checkTools([ask], tools)).toThrow("the model has no chat template");
    expect(() => base.checkTools([ask, result], [])).not.toThrow();
  });
});

describe("a demonstration that calls", () => {
  const END = tokenizer.idOf("<|im_end|>")!;
  const shown = (source: string, reply: ChatMessage) => {
    const prompter = createPrompter(tokenizer, createChatTemplate(source));
    const tools = toolsOf([weather]);
    const prompt = prompter.prompt([ask], tools);
    return tokenizer.decode(demonstration(prompter, prompt, { messages: [ask], tools, reply }, [END]).ids);
  };
  const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>';

  test("is the turn as the template writes it, up to its end token", () => {
    expect(shown(read("tools/tagged.jinja"), call)).toBe(`${CALL}<|im_end|>`);
    expect(shown(read("tools/tagged.jinja"), { ...call, content: "I look." })).toBe(`I look.\n${CALL}<|im_end|>`);
    expect(shown(read("tools/tagged.jinja"), { ...call, reasoning_content: "Hm." })).toBe(
      `<think>\nHm.\n</think>\n\n${CALL}<|im_end|>`,
    );
  });

  test("makes of a prompt what transformers makes of the whole conversation", () => {
    let compared = 0;
    for (const [name, texts] of Object.entries(expected)) {
      const prompter = createPrompter(tokenizer, template(name));
      for (const [conversation, { messages, tools }] of Object.entries(conversations)) {
        const read = toConversation(messages, "messages");
        const [, whole] = texts[conversation]!;
        if (typeof read === "string" || read.reply === null || typeof whole !== "string") continue;
        const o = { messages: read.messages, tools: toolsOf(tools), reply: read.reply };
        const prompt = prompter.prompt(o.messages, o.tools);
        expect(prompt.text + demonstration(prompter, prompt, o, []).text).toBe(whole);
        compared++;
      }
    }
    // Three templates, three conversations that end with the assistant.
    expect(compared).toBe(9);
  });

  test("is one of all turns of a conversation, its result being read alone", () => {
    const prompter = createPrompter(tokenizer, template("tagged"));
    const messages = [ask, call, result, { role: "assistant", content: "It is 3." }];
    const [one, ...more] = turnImitations(prompter, { messages, tools: toolsOf([weather]) }, [END]);
    const picked = (learned: number) => tokenizer.decode(one!.ids.filter((_, i) => one!.mask?.[i] === learned));
    expect([more, one!.prompt.text]).toEqual([[], prompter.prompt([ask], toolsOf([weather])).text]);
    expect(picked(1)).toBe(`${CALL}<|im_end|>It is 3.<|im_end|>`);
    expect(picked(0)).toMatch(
      /^\n<\|im_start\|>user\n<tool_response>\n3\n<\/tool_response><\|im_end\|>\n<\|im_start\|>assistant\n$/,
    );
  });

  test("stands behind a prompt that the template does not begin the turn with", () => {
    const other = read("tools/tagged.jinja").replace(
      "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}",
      "{{- '<|im_start|>assistant\\n\\n' }}\n{%- endif %}",
    );
    expect(shown(other, call)).toBe(`${CALL}<|im_end|>`);
    expect(shown(other, { ...call, content: "I look." })).toBe(`I look.\n${CALL}<|im_end|>`);
  });
});

describe("a run on rows with tools", () => {
  /** A random model that reads turns as that template writes them. */
  async function settings(rows: readonly unknown[], o: TrainConfig, template = "tagged"): Promise<TrainConfig> {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-tools-run-"));
    const files = {
      "tokenizer.json": TOKENIZER,
      "tokenizer_config.json": '{"eos_token": "<|im_end|>"}',
      "chat_template.jinja": read(`tools/${template}.jinja`),
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
