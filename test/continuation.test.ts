import { createChatTemplate } from "../lib/prompt/chat-template.js";
import { checkContinues, continuation } from "../lib/prompt/continuation.js";
import type { ChatMessage } from "../lib/prompt/messages.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { ask, call, result, template, tokenizer, toolsOf, weather } from "./support/tools.js";

const END = "<|im_end|>";
const tools = toolsOf([weather]);
const prompterOf = (source: string) => createPrompter(tokenizer, createChatTemplate(source));

describe("what a model reads between two of its turns", () => {
  test.each(["tagged", "headed"])("is what the template %s writes there", (name) => {
    const prompter = createPrompter(tokenizer, template(name));
    const before: ChatMessage[] = [ask];
    let text = prompter.prompt(before, tools).text;
    for (const [turn, replies] of [
      [call, [result]],
      [{ role: "assistant", content: "It is 3." }, [{ role: "user", content: "And in Chur?" }]],
      [call, [result, { role: "tool", content: "4" }]],
    ] as const) {
      const drawn = prompter.answered(before, turn, tools)!.slice(text.length);
      // What the model draws ends with its end token; what the template puts behind that is not drawn.
      const said = drawn.slice(0, drawn.indexOf(END) + END.length);
      const exchange = { before, turn, replies, tools };
      const read = continuation(prompter, exchange, [END], true);
      // A turn that a text ended lacks the token.
      expect(continuation(prompter, exchange, [END], false)).toBe(END + read);
      text += said + read;
      before.push(turn, ...replies);
      expect(text).toBe(prompter.prompt(before, tools).text);
    }
  });

  test("goes on behind two calls of a turn also where the template takes one alone, now and later", () => {
    const prompter = createPrompter(tokenizer, template("headed"));
    const twice = { ...call, tool_calls: [...call.tool_calls, ...call.tool_calls] };
    const replies = [result, { role: "tool", content: "4" }];
    const opened = "<|start|>assistant<|head|>\n\n";
    expect(continuation(prompter, { before: [ask], turn: twice, replies, tools }, [END], true)).toBe(
      `<|start|>ipython<|head|>\n\n"3"${END}<|start|>ipython<|head|>\n\n"4"${END}${opened}`,
    );
    const later = { before: [ask, twice, ...replies], turn: call, replies: [result], tools };
    expect(continuation(prompter, later, [END], true)).toBe(`<|start|>ipython<|head|>\n\n"3"${END}${opened}`);
    const refusing = prompterOf("{{ raise_exception('no') }}");
    expect(() => continuation(refusing, later, [END], true)).toThrow("no");
  });

  test("keeps what was thought where the template leaves it out of earlier turns", () => {
    // As Qwen 3's: thoughts are written for the last turn alone.
    const prompter = prompterOf(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n" +
        "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" +
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    const turn = { role: "assistant", content: "<think>hm</think>3" };
    const exchange = { before: [ask], turn, replies: [{ role: "user", content: "Sure?" }] };
    expect(continuation(prompter, exchange, [END], true)).toBe(
      "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
    );
  });

  test("begins behind the turn where the template ends it with nothing that the model draws", () => {
    const prompter = prompterOf("{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant] ");
    const exchange = {
      before: [ask],
      turn: { role: "assistant", content: "3" },
      replies: [{ role: "user", content: "Sure?" }],
    };
    expect(continuation(prompter, exchange, [END], true)).toBe(" [user] Sure? [assistant] ");
    expect(continuation(prompter, exchange, [""], true)).toBe(" [user] Sure? [assistant] ");
  });

  test("is the contents alone without a template", () => {
    const prompter = createPrompter(tokenizer, undefined);
    const replies = [
      { role: "user", content: "Sure?" },
      { role: "user", content: "\n" },
    ];
    expect(continuation(prompter, { before: [ask], turn: call, replies }, [END], true)).toBe("Sure?\n");
  });

  test("is refused where the template leaves it out or forbids it", () => {
    const deaf = prompterOf("{{ messages[0].content }}<|im_end|>");
    expect(() => checkContinues(deaf, { messages: [ask], tools: [] }, [END])).toThrow(/leaves out what is replied/);
    const strict = prompterOf("{% if messages | length > 1 %}{{ raise_exception('one turn alone') }}{% endif %}a");
    expect(() => checkContinues(strict, { messages: [ask], tools: [] }, [END])).toThrow(/one turn alone/);
    const toolless = prompterOf("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
    expect(() => checkContinues(toolless, { messages: [ask], tools }, [END])).toThrow(/leaves out tool 1 \(weather\)/);
    expect(() => checkContinues(toolless, { messages: [ask], tools: [] }, [END])).not.toThrow();
  });
});
