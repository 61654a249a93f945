import { chatTemplateIn, createChatTemplate } from "../lib/prompt/chat-template.js";
import { demonstration } from "../lib/prompt/demonstration.js";
import type { ChatMessage } from "../lib/prompt/messages.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { turnImitations } from "../lib/prompt/turns.js";
import { toConversation } from "../lib/trainer/data/conversation.js";
import {
  ask,
  call,
  conversations,
  expected,
  readFixture,
  result,
  template,
  tokenizer,
  toolsOf,
  weather,
} from "./support/tools.js";

/** All messages of a conversation, as a template is given them. */
function messagesOf(given: readonly unknown[]): readonly ChatMessage[] {
  const read = toConversation(given, "messages");
  if (typeof read === "string") throw new Error(read);
  return read.reply === null ? read.messages : [...read.messages, read.reply];
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
    expect(shown(readFixture("tools/tagged.jinja"), call)).toBe(`${CALL}<|im_end|>`);
    expect(shown(readFixture("tools/tagged.jinja"), { ...call, content: "I look." })).toBe(
      `I look.\n${CALL}<|im_end|>`,
    );
    expect(shown(readFixture("tools/tagged.jinja"), { ...call, reasoning_content: "Hm." })).toBe(
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
    const other = readFixture("tools/tagged.jinja").replace(
      "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}",
      "{{- '<|im_start|>assistant\\n\\n' }}\n{%- endif %}",
    );
    expect(shown(other, call)).toBe(`${CALL}<|im_end|>`);
    expect(shown(other, { ...call, content: "I look." })).toBe(`I look.\n${CALL}<|im_end|>`);
  });

  // Mistral Nemo's writes its system message before the last user's turn while that is the last message, and calls in the place of the content.
  const NEMO = `{%- for m in messages %}{%- if m.role == 'user' %}
    {{- '[INST]' + ('Be short. ' if loop.last else '') + m.content + '[/INST]' }}
    {%- elif m.tool_calls is defined %}{{- '[TOOL_CALLS]' + m.tool_calls[0].function | tojson + '<|im_end|>' }}
    {%- else %}{{- m.content + '<|im_end|>' }}{%- endif %}{%- endfor %}`;
  // DeepSeek-R1-Distill-Qwen's writes them before it, and a thought that ended at once behind the prompt alone.
  const R1 = `{%- for m in messages %}{%- if m.role == 'user' %}{{- '[U]' + m.content }}{%- endif %}
    {%- if m.tool_calls is defined %}{{- '[A][CALLS]' + m.tool_calls[0].function | tojson + '<|im_end|>' }}{%- endif %}
    {%- if m.role == 'assistant' %}{{- '[A]' + m.content + '<|im_end|>' }}{%- endif %}{%- endfor %}
    {%- if add_generation_prompt %}{{- '[A]<think></think>' }}{%- endif %}`;
  const JSON_CALL = '{"name": "weather", "arguments": {"city": "Bern"}}';

  test.each([
    ["in the place of its content", NEMO, "[TOOL_CALLS]"],
    ["before its content", R1, "[CALLS]"],
  ])("keeps the calls that a template which writes its prompt anew has %s", (_, source, mark) => {
    expect(shown(source, call)).toBe(`${mark}${JSON_CALL}<|im_end|>`);
    expect(shown(source, { ...call, content: "I look." })).toBe(`${mark}${JSON_CALL}<|im_end|>`);
    expect(shown(source, { role: "assistant", content: "It is 3." })).toBe("It is 3.<|im_end|>");
  });
});
