import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Script } from "node:vm";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../lib/policy/tokenizer.js";
import { createChatTemplate, loadChatTemplate } from "../lib/prompt/chat-template.js";
import { createTemplate } from "../lib/prompt/template.js";

const folder = join(__dirname, "fixtures/models/tokenizer-bpe");
interface Expected {
  texts: { text: string; ids: number[]; decoded: string }[];
  chat: { messages: { role: string; content: string }[]; text: string; ids: number[] };
}
const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;
let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer(folder);
});

describe("tokenizer", () => {
  test.each(expected.texts)("gives the reference's ids and text for $text", ({ text, ids, decoded }) => {
    expect([...tokenizer.encode(text)]).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(decoded);
  });

  test("does not tidy spaces before punctuation", () => {
    const text = "wait , really ? it 's so .";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  test("pieces join to the text and a character cut in two goes to the last of its ids", () => {
    const text = "naïve é 数\u{1f642} x";
    const ids = tokenizer.encode(`q${text}`);
    const pieces = tokenizer.pieces(ids);
    expect(pieces).toHaveLength(ids.length);
    expect(pieces.join("")).toBe(`q${text}`);
    expect(pieces.some((p) => p === "")).toBe(true);
    expect(pieces.join("")).not.toContain("\ufffd");
  });

  test("a stream that leaves special tokens out gives what decode leaves, spaces after them too", () => {
    // A decoder that takes away the space that begins a text, as those of Llama do.
    const json = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8"));
    const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
    json.decoder = { type: "Sequence", decoders: [json.decoder, { type: "Fuse" }, strip] };
    const stripping = createTokenizer(JSON.stringify(json));
    const end = tokenizer.idOf("<|im_end|>")!;
    for (const one of [tokenizer, stripping]) {
      const [word, more] = [one.encode(" one"), one.encode(" two 数")];
      const ids = [end, ...word, end, end, ...more, end];
      const feed = one.stream({ skipSpecialTokens: true });
      expect(ids.map(feed).join("")).toBe(one.decode(ids, { skipSpecialTokens: true }));
      expect(one.decode(ids, { skipSpecialTokens: true })).toContain("one two 数");
    }
  });

  test("a stream of ids cut inside a character ends as decode does", () => {
    const ids = tokenizer.encode("ab🙃").slice(0, -1);
    expect(tokenizer.pieces(ids).join("")).toBe(tokenizer.decode(ids));
  });

  test("ids beyond its vocabulary have no text", () => {
    const ids = [...tokenizer.encode("The answer"), tokenizer.size + 5];
    expect(tokenizer.decode(ids)).toBe("The answer");
    expect(tokenizer.pieces(ids).join("")).toBe("The answer");
  });

  test("special tokens are kept, or left out when asked", () => {
    expect(tokenizer.decode([286, 2])).toBe("The<|im_end|>");
    expect(tokenizer.decode([286, 2], { skipSpecialTokens: true })).toBe("The");
    expect(tokenizer.idOf("<|im_end|>")).toBe(2);
    expect(tokenizer.idOf("<|nowhere|>")).toBeUndefined();
  });

  test("a folder without tokenizer.json, a broken one and an unknown kind are typed errors", async () => {
    const empty = mkdtempSync(join(tmpdir(), "rlsd-tok-"));
    await expect(loadTokenizer(empty)).rejects.toMatchObject({ code: "ERR_RLSD_TOKENIZER" });
    writeFileSync(join(empty, "tokenizer.json"), "{ not json");
    await expect(loadTokenizer(empty)).rejects.toThrow(/tokenizer\.json is not JSON/);
    const json = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8"));
    json.pre_tokenizer = { type: "Sorcery" };
    expect(() => createTokenizer(JSON.stringify(json))).toThrow(/Sorcery/);
  });
});

describe("chat template", () => {
  test("renders and encodes the reference conversation", async () => {
    const template = await loadChatTemplate(folder);
    const text = template?.render(expected.chat.messages) ?? "";
    expect(text).toBe(expected.chat.text);
    expect([...tokenizer.encode(text)]).toEqual(expected.chat.ids);
    expect(template?.render(expected.chat.messages, { addGenerationPrompt: false })).toBe(
      expected.chat.text.replace(/<\|im_start\|>assistant\n$/, ""),
    );
  });

  test("a template as Gemma's: its role is model, what the system says comes before the first question", () => {
    const template = createChatTemplate(
      `{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}`,
      { bos_token: "<bos>" },
    );
    const turns = [
      { role: "user", content: " Hi " },
      { role: "assistant", content: "Yes?" },
      { role: "user", content: "Go on." },
    ];
    const said =
      "Hi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n<start_of_turn>user\nGo on.<end_of_turn>\n<start_of_turn>model\n";
    expect(template.render(turns)).toBe(`<bos><start_of_turn>user\n${said}`);
    const system = { role: "system", content: "Be brief." };
    expect(template.render([system, ...turns])).toBe(`<bos><start_of_turn>user\nBe brief.\n\n${said}`);
    expect(() => template.render(turns.slice(1))).toThrow(/roles must alternate/);
  });

  test("special tokens and given variables reach the template", () => {
    const config = { bos_token: { content: "<s>" }, eos_token: "</s>" };
    const template = createChatTemplate(
      "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}{{ extra }}",
      config,
    );
    expect(template.render([{ role: "user", content: "hi" }], { variables: { extra: 7 } })).toBe("<s>hi</s>7");
  });

  test("older folders keep the template in tokenizer_config.json; none is undefined", async () => {
    const dir = mkdtempSync(join(tmpdir(), "rlsd-chat-"));
    expect(await loadChatTemplate(dir)).toBeUndefined();
    const jinja = join(dir, "chat_template.jinja");
    writeFileSync(jinja, "{% for %}");
    await expect(loadChatTemplate(dir)).rejects.toMatchObject({
      code: "ERR_RLSD_CHAT_TEMPLATE",
      message: expect.stringContaining(`${jinja}: not valid Jinja: `),
    });
    rmSync(jinja);
    writeFileSync(join(dir, "tokenizer_config.json"), JSON.stringify({ chat_template: "{{ raise_exception('no') }}" }));
    const refusing = await loadChatTemplate(dir);
    expect(() => refusing?.render([])).toThrow(
      `${join(dir, "tokenizer_config.json")}: chat_template: cannot render this conversation: no`,
    );
    mkdirSync(join(dir, "none", "chat_template.jinja"), { recursive: true });
    await expect(loadChatTemplate(join(dir, "none"))).rejects.toMatchObject({ code: "ERR_RLSD_CHAT_TEMPLATE" });
    const named = [
      { name: "tool_use", template: "no" },
      { name: "default", template: "yes {{ messages[0].content }}" },
    ];
    writeFileSync(join(dir, "tokenizer_config.json"), JSON.stringify({ chat_template: named }));
    expect((await loadChatTemplate(dir))?.render([{ role: "user", content: "x" }])).toBe("yes x");
  });

  test("bad Jinja and a template's own refusal are typed errors", () => {
    expect(() => createChatTemplate("{% for %}")).toThrow(expect.objectContaining({ code: "ERR_RLSD_CHAT_TEMPLATE" }));
    const refuses = createChatTemplate("{{ raise_exception('roles must alternate') }}");
    expect(() => refuses.render([])).toThrow(/roles must alternate/);
  });

  test("a range is what it is in Jinja, and no longer than in its sandbox", () => {
    const shown = (list: string) => createChatTemplate(`{% for i in ${list} %}{{ i }} {% endfor %}`).render([]);
    expect(shown("range(3)")).toBe("0 1 2 ");
    expect(shown("range(1, 6, 2)")).toBe("1 3 5 ");
    expect(shown("range(2, -1, -1)")).toBe("2 1 0 ");
    expect(shown("range(2, 1)")).toBe("");
    expect(createChatTemplate("{{ range(100000) | length }}").render([])).toBe("100000");
    for (const list of ["range(1000000000)", "range(0, 1, 0.000001)"]) {
      expect(() => shown(list)).toThrow(/cannot render this conversation: range\(\) of more than 100000 numbers/);
    }
    expect(() => shown("range(0, 1, 0)")).toThrow(/steps of 0/);
  });

  test("a template without end is stopped, and then refused without another wait", () => {
    const nested = "{% set r = range(1000) %}{% for i in r %}{% for j in r %}{% for k in r %}{% endfor %}{% endfor %}";
    const template = createTemplate(`${nested}{% endfor %}`, 200);
    expect(() => template.render({})).toThrow("it takes longer than 0.2 s");
    const again = performance.now();
    expect(() => template.render({})).toThrow("it takes longer than 0.2 s");
    expect(performance.now() - again).toBeLessThan(100);
    expect(createTemplate("{{ a }}").render({ a: 1 })).toBe("1");
  });

  test("a prompt takes no watch of the clock, a long one does, and both are written alike", () => {
    const source =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ strftime_now('%Y') | length }}";
    const template = createTemplate(source);
    const watched = jest.spyOn(Script.prototype, "runInContext");
    const written = (count: number) => {
      const messages = Array.from({ length: count }, (_, i) => ({ role: "user", content: `words ${i}` }));
      expect(template.render({ messages })).toBe(`${messages.map((m) => `user: ${m.content}\n`).join("")}4`);
      return watched.mock.calls.length;
    };
    expect([written(20), written(20), written(20_000)]).toEqual([0, 0, 1]);
    watched.mockRestore();
  });

  test("a list that is in itself twice, again and again, is not written for ever", () => {
    const doubled = `{% set l = [1] %}${"{% set l = [l, l] %}".repeat(60)}`;
    for (const write of ["l", "l | tojson", "l | string", "{'a': l} | tojson"]) {
      expect(() => createTemplate(`${doubled}{{ ${write} }}`, 200).render({})).toThrow("it takes longer than 0.2 s");
    }
    const names = Array.from({ length: 60 }, (_, k) => k);
    const empty = names.map((k) => `{% set n${k} = namespace(l=[]) %}`).join("");
    const filled = names.slice(1).map((k) => `{% set n${k}.l = [n${k - 1}, n${k - 1}] %}`);
    for (const order of [filled, filled.toReversed()]) {
      const template = createTemplate(`${empty}${order.join("")}{{ n59 | tojson }}`, 200);
      expect(() => template.render({})).toThrow("it takes longer than 0.2 s");
    }
    const itself = "{% set n = namespace() %}{% set n.n = n %}{{ n.n.n is defined }}";
    expect(createTemplate(itself).render({})).toBe("True");
  });
});
