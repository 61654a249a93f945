import { readCalls } from "../lib/verifiers/tool-calls.js";

const weather = { name: "weather", arguments: { city: "Bern" } };
const time = { name: "time", arguments: {} };

describe("calls of tools in what a model wrote", () => {
  test.each<[string, string, string]>([
    [
      "Hermes and Qwen",
      'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>',
      "Let me see.",
    ],
    [
      "arguments as JSON in a text",
      '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Bern\\"}"}</tool_call>',
      "",
    ],
    [
      "Qwen 3 Coder",
      "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n</function>\n</tool_call>",
      "",
    ],
    ["a tag that never closes", '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}', ""],
    ["Mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bern"}}]', ""],
    ["later Mistral", 'Well.[TOOL_CALLS]weather[ARGS]{"city": "Bern"}', "Well."],
    ["Mistral Small 3.2", 'Well.[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Bern"}', "Well."],
    ["Llama 3", '{"name": "weather", "parameters": {"city": "Bern"}}', ""],
    ["Llama 3 with its tag", 'So: <|python_tag|>{"name": "weather", "parameters": {"city": "Bern"}}', "So:"],
    [
      "behind a thought",
      '<think>\nI <tool_call>\n</think>\n\n<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>',
      "<think>\nI <tool_call>\n</think>",
    ],
    ["OLMo 3", 'Let me see.\n<function_calls>\nweather(city="Bern")\n</function_calls>', "Let me see."],
    ["LFM 2", "<|tool_call_start|>[weather(city='Bern')]<|tool_call_end|>Well.", ""],
    ["Llama 3.2 in a list", '[weather(city="Bern")]', ""],
    ["Granite 3", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Bern"}}]', ""],
    ["Phi 4 mini", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Bern"}}]<|/tool_call|>', ""],
  ])("%s", (_, raw, content) => {
    expect(readCalls(raw)).toEqual({ content, calls: [weather] });
  });

  test.each([
    [
      "Hermes",
      '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>\n<tool_call>{"name": "time"}</tool_call>',
    ],
    ["Mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bern"}}, {"name": "time", "arguments": {}}]'],
    ["later Mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Bern"}[TOOL_CALLS]time[ARGS]{}'],
    ["Llama 3", '{"name": "weather", "parameters": {"city": "Bern"}}; {"name": "time", "parameters": {}}'],
    ["OLMo 3", '<function_calls>\nweather(city="Bern")\ntime()\n</function_calls>'],
    ["LFM 2", '<|tool_call_start|>[weather(city="Bern"), time()]<|tool_call_end|>'],
    ["Llama 3.2", '[weather(city="Bern"), time()]'],
  ])("several of %s, in their order", (_, raw) => {
    expect(readCalls(raw)?.calls).toEqual([weather, time]);
  });

  test.each([
    ["prose", "It is 3 degrees."],
    ["JSON that calls nothing", '{"answer": 3}'],
    ["a list of numbers", "[1, 2, 3]"],
    ["JSON that is cut", '{"name": "weather"'],
    ["a thought that never ends", '<think>\n<tool_call>{"name": "weather"}</tool_call>'],
    ["nothing", ""],
  ])("none in %s", (_, raw) => {
    expect(readCalls(raw)).toBeUndefined();
  });

  test.each<[string, string | undefined, RegExp]>([
    ["<tool_call>weather(Bern)</tool_call>", undefined, /^it is not JSON/],
    ["<tool_call></tool_call>", undefined, /^it is not JSON/],
    ['<tool_call>{"arguments": {}}</tool_call>', undefined, /^it has no name/],
    ['<tool_call>{"name": "weather", "arguments": [1]}</tool_call>', "weather", /^its arguments are not an object/],
    ['<tool_call>{"name": "weather", "arguments": "Bern"}</tool_call>', "weather", /^its arguments are not JSON/],
    [
      `<tool_call>{"name": "w", "arguments": {"a": ${"[".repeat(99)}${"]".repeat(99)}}}</tool_call>`,
      "w",
      /nest more than 64 levels/,
    ],
    ["[TOOL_CALLS] nonsense", undefined, /^it is not JSON/],
    ["<|python_tag|>print(1)", undefined, /^it is not JSON/],
    ["<function_calls>weather(Bern)</function_calls>", undefined, /^it is not a call: expected "=" but found "\)"/],
    ["<function_calls>weather(city=Bern)</function_calls>", undefined, /^it is not a call: expected a text, a number/],
    ["[weather(", undefined, /^it is not a call: expected an argument's name but found the end/],
    ["[weather()] or so", undefined, /^it is not a call: expected the end but found "or so"/],
    ["<|tool_call|>weather", undefined, /^it is not JSON/],
  ])("what cannot be read is a call with a fault: %s", (raw, name, fault) => {
    expect(readCalls(raw)?.calls).toEqual([{ name, fault: expect.stringMatching(fault) }]);
  });

  test.each<[string, unknown]>([
    ['"a \\"b\\" \\n\\u00e9\\x41"', 'a "b" \n\u00e9A'],
    ["'it''s'", undefined],
    ["-1.5e3", -1500],
    ["1_000", 1000],
    [".5", 0.5],
    ["True", true],
    ["None", null],
    ["[1, [2, 'x'], ]", [1, [2, "x"]]],
    ["(1, 2)", [1, 2]],
    ['{"a": {"b": []}, 1: False}', { a: { b: [] }, 1: false }],
    ["{'__proto__': 1}", JSON.parse('{"__proto__": 1}')],
    ["nonsense", undefined],
    ["[".repeat(65), undefined],
    ["[".repeat(1e5), undefined],
  ])("a value as Python writes it: %s", (written, value) => {
    const [call] = readCalls(`<function_calls>f(x=${written})</function_calls>`)!.calls;
    if (value === undefined) expect(call).toHaveProperty("fault");
    else expect(call).toEqual({ name: "f", arguments: { x: value } });
  });

  test("a hundred thousand brackets end no process", () => {
    const deep = `<tool_call>{"name": "w", "arguments": {"a": ${"[".repeat(1e5)}${"]".repeat(1e5)}}}</tool_call>`;
    expect(readCalls(deep)?.calls).toHaveLength(1);
  });

  test.each<[string, string]>([
    ["beginnings without an end", "<parameter=a>"],
    ["beginnings of beginnings", "<parameter="],
    ["beginnings behind one another and an empty line", "<parameter=a>\n\n"],
  ])("%s take time in proportion to the text", (_, part) => {
    const seconds = (times: number) => {
      const text = `<tool_call><function=a>${part.repeat(times)}`;
      const start = performance.now();
      expect(readCalls(text)?.calls).toEqual([{ name: "a", arguments: {} }]);
      return performance.now() - start;
    };
    seconds(100);
    // Each beginning followed to the end of the text would take some 10^10 steps.
    expect(seconds(40_000)).toBeLessThan(2000);
  });

  test("calls that never close take no more time than as many that do", () => {
    const count = 30_000;
    const fault = { name: undefined, fault: expect.stringMatching(/^it is not JSON/) };
    const read = (part: string) => {
      const text = part.repeat(count);
      const start = performance.now();
      const calls = readCalls(text)!.calls;
      const time = performance.now() - start;
      expect([calls.length, calls[0], calls.at(-1)]).toEqual([count, fault, fault]);
      return time;
    };
    const best = (part: string) => Math.min(...[1, 2, 3].map(() => read(part)));
    // Each followed to the end of the text in search of its own would take some twenty times as long.
    expect(best("<tool_call>")).toBeLessThan(4 * best("<tool_call></tool_call>"));
  });
});
