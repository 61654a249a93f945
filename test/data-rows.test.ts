import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadDataset, settleProblems } from "../lib/trainer/data/dataset.js";
import { guessFields } from "../lib/trainer/data/fields.js";
import { readRows } from "../lib/trainer/data/read-rows.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-data-"));
let files = 0;
function file(name: string, content: string | object[]): string {
  const path = join(folder, `${files++}-${name}`);
  const text = typeof content === "string" ? content : content.map((row) => JSON.stringify(row)).join("\n");
  writeFileSync(path, text);
  return path;
}

async function rowsOf(path: string) {
  const out = [];
  for await (const row of readRows(path)) out.push(row);
  return out;
}

test("reading many rows leaves the event loop time for others, such as who stops it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-breath-"));
  const path = join(folder, "rows.jsonl");
  writeFileSync(path, '{"prompt":"a"}\n'.repeat(40));
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const busy = (ms: number) => {
    for (const until = performance.now() + ms; performance.now() < until; );
  };
  let first = 0;
  await loadDataset([path], {
    check: () => {
      first ||= turns + 1;
      busy(20);
    },
  });
  clearInterval(timer);
  expect(turns - first).toBeGreaterThanOrEqual(3);
});

describe("rows as people have them", () => {
  const shapes: Record<string, { row: object; example: object }> = {
    verl: {
      row: {
        data_source: "gsm8k",
        prompt: [{ role: "user", content: "2 + 2?" }],
        ability: "math",
        reward_model: { style: "rule", ground_truth: "4" },
        extra_info: { index: 7, split: "train" },
      },
      example: { id: "7", messages: [{ role: "user", content: "2 + 2?" }], answer: "4" },
    },
    "TRL with a text": {
      row: { prompt: "2 + 2?", solution: "2 + 2 = 4", ground_truth: 4, privileged_context: "count on fingers" },
      example: { answer: "4", trace: "2 + 2 = 4", document: "count on fingers" },
    },
    "TRL with messages": {
      row: {
        prompt: [
          { role: "system", content: "s" },
          { role: "user", content: "q" },
        ],
        answer: "a",
      },
      example: {
        messages: [
          { role: "system", content: "s" },
          { role: "user", content: "q" },
        ],
        answer: "a",
      },
    },
    "EasyR1 and RLSD": {
      row: { problem: "2 + 2?", answer: "4", trajectory: "it is 4", problem_id: "p1", images: [] },
      example: { id: "p1", answer: "4", trace: "it is 4", messages: [{ role: "user", content: "2 + 2?" }] },
    },
    "ms-swift": {
      row: {
        messages: [
          { role: "user", content: "2 + 2?" },
          { role: "assistant", content: "4" },
        ],
        solution: "4",
        teacher_prompt: "2 + 2? It is 4.",
      },
      example: {
        messages: [{ role: "user", content: "2 + 2?" }],
        answer: "4",
        trace: "4",
        document: "2 + 2? It is 4.",
      },
    },
    ShareGPT: {
      row: {
        conversations: [
          { from: "system", value: "Add." },
          { from: "human", value: "2 + 2?" },
          { from: "gpt", value: "2 + 2 = 4" },
        ],
        answer: "4",
      },
      example: {
        messages: [
          { role: "system", content: "Add." },
          { role: "user", content: "2 + 2?" },
        ],
        answer: "4",
        trace: "2 + 2 = 4",
      },
    },
    "OpenAI, contents in parts": {
      row: {
        messages: [
          { role: "system", content: "Add." },
          {
            role: "user",
            content: [
              { type: "text", text: "2 + 2" },
              { type: "text", text: "?" },
            ],
          },
          { role: "assistant", content: [{ type: "text", text: "2 and 2" }] },
          { role: "assistant", content: "is 4" },
        ],
        answer: "4",
      },
      example: {
        messages: [
          { role: "system", content: "Add." },
          { role: "user", content: "2 + 2?" },
        ],
        trace: "2 and 2\nis 4",
      },
    },
  };
  test.each(Object.entries(shapes))("%s", async (_, { row, example }) => {
    const { examples, problems } = await loadDataset([file("rows.jsonl", [row])]);
    expect(problems).toEqual([]);
    expect(examples[0]).toMatchObject(example);
    // Every column goes on to the verifier; the answer under its usual name too.
    expect(examples[0].row).toMatchObject(row);
    expect(examples[0].row.answer).toBeDefined();
  });

  test("a column goes before the assistant's own answer, and what is no text is refused by its place", async () => {
    const turns = (content: unknown) => [
      { role: "user", content: "q" },
      { role: "assistant", content },
    ];
    const rows = [
      { messages: turns("reply"), trace: "column", answer: "a" },
      { messages: turns("reply"), trace: null, answer: "a" },
      { messages: turns([{ type: "image_url", image_url: "x" }]), answer: "a" },
      { messages: turns([]), answer: "a" },
      { messages: [{ role: "user", content: "q" }, null], answer: "a" },
      { messages: turns("").slice(1), answer: "a" },
    ];
    const { examples, problems } = await loadDataset([file("replies.jsonl", rows)]);
    expect(examples.map(({ trace }) => trace)).toEqual(["column", "reply"]);
    const wrong = 'column "messages": message 2 has no "role" and "content" that are texts';
    expect(problems.map(({ problem }) => problem)).toEqual([
      wrong,
      wrong,
      wrong,
      'column "messages" has no message to answer',
    ]);
  });

  test("columns that were named win over guesses, and a named one that is not there is an error", async () => {
    const path = file("rows.jsonl", [{ question: "no", ask: "yes", answer: "1", gold: "2" }]);
    const { examples } = await loadDataset([path], { fields: { prompt: "ask", answer: "gold" } });
    expect(examples[0]).toMatchObject({ messages: [{ role: "user", content: "yes" }], answer: "2" });
    const wrong = loadDataset([path], { fields: { answer: "golf" } });
    await expect(wrong).rejects.toMatchObject({ code: "ERR_RLSD_DATA", message: expect.stringContaining('"gold"') });
  });

  test("a question that was named is the one that is asked, whatever else looks like one", async () => {
    const path = file("two.jsonl", [{ messages: [{ role: "user", content: "no" }], ask: "yes" }]);
    const named = await loadDataset([path], { fields: { prompt: "ask" } });
    expect(named.examples[0]!.messages).toEqual([{ role: "user", content: "yes" }]);
    expect(guessFields([{ question: "no", talk: [] }], { messages: "talk" })).toMatchObject({ prompt: null });
  });

  test("a solution is the trace alone where another column has the answer, else both; of a conversation the answer", () => {
    const both = guessFields([{ question: "q", answer: "1", solution: "long" }], {});
    expect(both).toMatchObject({ answer: "answer", trace: "solution" });
    const alone = guessFields([{ problem: "q", solution: "long, so \\boxed{1}" }], {});
    expect(alone).toMatchObject({ answer: "solution", trace: "solution" });
    const spoken = guessFields([{ messages: [], solution: "1" }], {});
    expect(spoken).toMatchObject({ answer: "solution", trace: null });
    const imitated = guessFields([{ prompt: "q", solution: "1", completion: "so 1" }], {}, true);
    expect(imitated).toMatchObject({ answer: "solution", trace: "completion" });
    expect(guessFields([{ question: "q", label: "1" }], {})).toMatchObject({ answer: "label", trace: null });
  });

  test("a column that was named as the trace still has the answer, where no other has", () => {
    const gsm8k = { question: "q", answer: "1 + 1 is 2\n#### 2" };
    expect(guessFields([gsm8k], { trace: "answer" })).toMatchObject({ answer: "answer", trace: "answer" });
    const math = { problem: "q", solution: "long" };
    expect(guessFields([math], { trace: "solution" })).toMatchObject({ answer: "solution", trace: "solution" });
    expect(guessFields([math], { answer: "solution" })).toMatchObject({ answer: "solution", trace: "solution" });
    const both = { ...math, answer: "1" };
    expect(guessFields([both], { trace: "solution" })).toMatchObject({ answer: "answer", trace: "solution" });
  });

  test("columns that do not fit are told with the file that they are not in", async () => {
    const [one, two] = [file("one.jsonl", [{ problem: "q", solution: "1" }]), file("two.jsonl", [{ question: "q" }])];
    const named = loadDataset([one, two], { fields: { answer: "solution" } });
    await expect(named).rejects.toThrow(`${two}: "data.fields.answer" is solution, but no row has such a column`);
    const nothing = file("none.jsonl", [{ text: "q" }]);
    await expect(loadDataset([one, nothing])).rejects.toThrow(`${nothing}: none of the columns (text)`);
  });

  test("columns are those of all rows: the first may lack one, or have null there", async () => {
    const full = { question: "q", answer: "1", trace: "long", mine: "x" };
    for (const first of [
      { question: "q", answer: "1" },
      { ...full, trace: null, mine: null },
    ]) {
      const path = file("first.jsonl", [first, full, full]);
      const guessed = await loadDataset([path]);
      expect(guessed.examples.map((e) => e.trace)).toEqual([null, "long", "long"]);
      const named = await loadDataset([path], { fields: { document: "mine" } });
      expect(named.examples.map((e) => e.document)).toEqual([null, "x", "x"]);
    }
    const never = { question: "q", trace: null, solution: "1" };
    expect(guessFields([never, never], {})).toMatchObject({ answer: "solution", trace: "solution" });
    await expect(loadDataset([file("none.jsonl", [never])], { fields: { id: "idd" } })).rejects.toThrow("no row has");
  });

  test("of a file of which few rows are wanted the rest is not read, and rows that do not fit are made up for", async () => {
    const rows = Array.from({ length: 1500 }, (_, i) => ({ prompt: i < 1200 ? "" : `q${i}` }));
    const path = file("many.jsonl", `${rows.map((row) => JSON.stringify(row)).join("\n")}\n{broken`);
    const { examples, problems } = await loadDataset([path], { limit: 2 });
    expect([examples.map((e) => e.id), problems.length]).toEqual([["1200", "1201"], 1200]);
  });

  test("an empty name says that no column plays a part", () => {
    const row = { question: "q", answer: "1", hint: "h", tools: [{ name: "f" }] };
    expect(guessFields([row], {})).toMatchObject({ document: "hint", tools: "tools" });
    expect(guessFields([row], { document: "", tools: "" })).toMatchObject({
      answer: "answer",
      document: null,
      tools: null,
    });
  });

  test("rows without anything like a prompt are refused with the columns that there are", () => {
    expect(() => guessFields([{ foo: 1, bar: 2 }], {})).toThrow(/columns \(foo, bar\).*data\.fields\.prompt/);
  });

  test("a system message is put before prompts that have none", async () => {
    const path = file("rows.jsonl", [
      { prompt: "a" },
      {
        prompt: [
          { role: "system", content: "own" },
          { role: "user", content: "b" },
        ],
      },
    ]);
    const { examples } = await loadDataset([path], { system: "be brief" });
    expect(examples.map((e) => e.messages[0])).toEqual([
      { role: "system", content: "be brief" },
      { role: "system", content: "own" },
    ]);
  });
});

describe("data.template", () => {
  const template =
    '{{ content }}\n{% for choice in row.choices %}{{ "ABC"[loop.index0] }}. {{ choice }}\n{% endfor %}End.';
  const row = { question: "Which?", choices: ["x", "y"], answer: 1, meta: { gold: "y", level: 3 } };
  const asked = async (rows: object[], source: string, fields = {}) =>
    loadDataset([file("asked.jsonl", rows)], { template: source, fields });

  test("asks the first question in its words, by the row's other columns, and keeps what was given", async () => {
    const { examples, problems } = await asked([row], template);
    expect(problems).toEqual([]);
    expect(examples[0]!.messages).toEqual([{ role: "user", content: "Which?\nA. x\nB. y\nEnd." }]);
    expect(examples[0]!.given).toEqual([{ role: "user", content: "Which?" }]);
    const turns = [
      { role: "system", content: "s" },
      { role: "user", content: "one" },
      { role: "assistant", content: "two" },
      { role: "user", content: "three" },
    ];
    const talk = await asked([{ messages: turns }], "Q: {{ content }}");
    expect(talk.examples[0]!.messages.map(({ content }) => content)).toEqual(["s", "Q: one", "two", "three"]);
  });

  test("cannot tell the answer", async () => {
    const said = async (source: string, fields = {}) => (await asked([row], source, fields)).problems[0]?.problem;
    expect(await said("{{ content }} {{ row.answer }}")).toMatch(/"data\.template": it shows "answer", which tells/);
    expect(await said("{{ content }} {{ row }}")).toMatch(/it shows "answer"/);
    expect(await said("{{ content }} {{ row.meta.level }}")).toBeUndefined();
    expect(await said("{{ content }} {{ row.meta.level }}", { answer: "meta.gold" })).toMatch(/it shows "meta"/);
  });

  test("is Jinja that shows the question", async () => {
    await expect(asked([row], "{% if %}")).rejects.toThrow(/"data\.template": not valid Jinja/);
    await expect(asked([row], "{{ row.choices }}")).rejects.toThrow(/it never uses \{\{ content \}\}/);
    const { problems } = await asked([row, { ...row, choices: 3 }], "{{ content }} {{ row.choices[0] | upper }}");
    expect(problems.map(({ where }) => where.split(":").at(-1))).toEqual(["2"]);
  });
});

describe("rows that do not fit", () => {
  test("are named with file and line, counted, and stop the run unless asked to be left out", async () => {
    const path = file(
      "bad.jsonl",
      [
        '{"prompt":"good","answer":"1"}',
        "",
        "{broken",
        '{"prompt":"","answer":"2"}',
        "[1]",
        "null",
        '{"prompt":"fine"}',
      ].join("\n"),
    );
    const data = await loadDataset([path]);
    expect(data.examples).toHaveLength(2);
    expect(data.problems.map((p) => p.where)).toEqual([`${path}:3`, `${path}:4`, `${path}:5`, `${path}:6`]);
    expect(data.problems.slice(2).map((p) => p.problem)).toEqual([
      "expected an object but found a list",
      "expected an object but found null",
    ]);
    expect(() => settleProblems("data.train", data, "error")).toThrow(
      /4 of 6 rows do not fit:\n.*bad\.jsonl:3: not JSON/,
    );
    expect(settleProblems("data.train", data, "skip")).toBe(4);
  });

  test("a broken first line does not hide the rest", async () => {
    const data = await loadDataset([file("first.jsonl", '{"pro\n{"prompt":"x"}')]);
    expect([data.examples.length, data.problems.length]).toEqual([1, 1]);
  });

  test("messages without role or content are named by number", async () => {
    const data = await loadDataset([
      file("m.jsonl", [{ messages: [{ role: "user", content: "a" }, { role: "user" }] }]),
    ]);
    expect(data.problems[0].problem).toContain("message 2");
  });

  test("a file that is not there, of an unknown kind, or empty is one clear error", async () => {
    await expect(rowsOf(join(folder, "nowhere.jsonl"))).rejects.toMatchObject({ code: "ERR_RLSD_DATA" });
    await expect(rowsOf(file("rows.txt", "a,b"))).rejects.toThrow(/"\.txt"\. Expected one of \.jsonl/);
    mkdirSync(join(folder, "folder.jsonl"));
    await expect(rowsOf(join(folder, "folder.jsonl"))).rejects.toThrow(/cannot read .*folder\.jsonl: it is a folder/);
    const none = await loadDataset([file("empty.jsonl", "")]);
    expect(() => settleProblems("data.train", none, "skip")).toThrow("there is no row");
  });
});

describe("files", () => {
  test("JSON lists and JSON lines give the same rows, with a byte order mark and Windows line ends too", async () => {
    const rows = [
      { prompt: "é", answer: 1 },
      { prompt: "b", answer: 2 },
    ];
    const list = await rowsOf(file("list.json", JSON.stringify(rows)));
    const lines = await rowsOf(file("lines.jsonl", `\ufeff${rows.map((row) => JSON.stringify(row)).join("\r\n")}\r\n`));
    expect(list.map((r) => r.row)).toEqual(rows);
    expect(lines.map((r) => r.row)).toEqual(rows);
  });

  test("integers beyond 2^53 keep every digit, as texts, and nothing else changes", async () => {
    const text = String.raw`{"a":12345678901234567890,"b":[-9007199254740993,9007199254740991],"c":0.1234567890123456,"d":"say \": 12345678901234567890, \\","e":{"11111111111111111111":1e20}}`;
    const row = {
      a: "12345678901234567890",
      b: ["-9007199254740993", 9007199254740991],
      c: 0.1234567890123456,
      d: 'say ": 12345678901234567890, \\',
      e: { "11111111111111111111": 1e20 },
    };
    expect((await rowsOf(file("large.jsonl", `${text}\n{"a":1}`))).map((r) => r.row)).toEqual([row, { a: 1 }]);
    expect((await rowsOf(file("large.json", `[${text}]`))).map((r) => r.row)).toEqual([row]);
  });

  test("a JSON file with one object a line says which ending it wants", async () => {
    await expect(rowsOf(file("lines.json", '{"a":1}\n{"a":2}'))).rejects.toThrow(".jsonl");
  });

  test.each(["snappy", "zstd", "gzip"])("Parquet, %s, nested columns and several row groups", async (codec) => {
    const rows = await rowsOf(join(__dirname, `fixtures/data/rows-${codec}.parquet`));
    expect(rows).toHaveLength(5);
    expect(rows[4].where).toMatch(/:5$/);
    expect(rows[1].row).toEqual({
      prompt: [{ role: "user", content: "question 1" }],
      reward_model: { style: "rule", ground_truth: "1" },
      number: 1,
      large: "9007199254740993",
    });
  });

  test("a Parquet file that is none is one clear error", async () => {
    await expect(rowsOf(file("no.parquet", "PAR1 not really"))).rejects.toMatchObject({ code: "ERR_RLSD_DATA" });
  });
});
