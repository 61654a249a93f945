import { join } from "node:path";
import { exactJson } from "../lib/exact-json.js";
import { createChatTemplate } from "../lib/prompt/chat-template.js";
import { type ChatMessage, turnText } from "../lib/prompt/messages.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { loadDataset } from "../lib/trainer/data/dataset.js";
import {
  ask,
  call,
  conversations,
  expected,
  fixtures,
  result,
  rowsFile,
  template,
  tokenizer,
  toolsOf,
  weather,
} from "./support/tools.js";

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

  test("have the thought of a turn by each of the names that transformers reads", async () => {
    for (const name of ["reasoning_content", "thinking", "reasoning"]) {
      const { reply } = await one({ messages: [ask, { ...call, [name]: "Hm." }] });
      expect(reply).toEqual({ ...call, reasoning_content: "Hm." });
    }
    const { reply } = await one({
      messages: [ask, { ...call, reasoning: "b", thinking: null, reasoning_content: "a" }],
    });
    expect(reply).toEqual({ ...call, reasoning_content: "a" });
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

  test("keep the digits of integers beyond 2^53 in calls and tools; the row that a verifier sees has them as texts", async () => {
    const { messages, tools } = conversations["integers beyond 2^53"]!;
    const reply = { role: "assistant", content: null, tool_calls: [{ name: "order", arguments: { id: 2n ** 60n } }] };
    const all = [...messages, reply];
    for (const row of [
      { messages: all, tools, id: 2n ** 60n },
      { messages: exactJson(all), tools: exactJson(tools), id: 2n ** 60n },
    ]) {
      const read = await one(row);
      expect(template("tagged").render(read.messages!, { tools: read.tools!, addGenerationPrompt: true })).toBe(
        expected.tagged!["integers beyond 2^53"]![0],
      );
      expect(read.trace).toBe('{"name":"order","arguments":{"id":1152921504606846976}}');
      expect([read.id, read.row!.id]).toEqual(["1152921504606846976", "1152921504606846976"]);
      expect(JSON.parse(JSON.stringify(read.row))).toEqual(read.row);
    }
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
    [
      "a trace with results",
      { prompt: "q", trace: [call, result, call] },
      'turns of the assistant alone, not of tool: a conversation goes into a column "messages"',
    ],
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
