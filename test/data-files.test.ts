import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { loadDataset } from "../lib/trainer/data/dataset.js";
import { findDataFiles } from "../lib/trainer/data/find-files.js";
import { createMatcher } from "../lib/trainer/data/glob.js";
import { readRows } from "../lib/trainer/data/read-rows.js";

const lines = (...rows: readonly object[]) => `${rows.map((row) => JSON.stringify(row)).join("\n")}\n`;

/** A new folder with files of that content. */
function folderOf(files: Readonly<Record<string, string | Buffer>>): string {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-files-"));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

async function found(folder: string, ...entries: string[]): Promise<string[]> {
  const files = await findDataFiles(entries.map((entry) => join(folder, entry)));
  return files.map((file) => relative(folder, file));
}

async function rowsOf(file: string): Promise<unknown[]> {
  const out = [];
  for await (const { row, problem } of readRows(file)) out.push(row ?? problem);
  return out;
}

describe("a name", () => {
  const meant: [string, string[], string[]][] = [
    ["*.jsonl", ["a.jsonl", ".jsonl.jsonl".slice(1), "é b.jsonl"], [".a.jsonl", "a.json", "a.jsonl.gz"]],
    ["part-?.csv", ["part-1.csv", "part-\u{1f600}.csv"], ["part-10.csv", "part-.csv"]],
    ["[a-c]?[!0-9]", ["a1x", "c\u00e9-"], ["d1x", "a12", "ax"]],
    ["[]x]", ["]", "x"], ["[]x]", "y"]],
    ["[abc", ["[abc"], ["a"]],
    ["{train,test-{a,b}}.json", ["train.json", "test-a.json", "test-b.json"], ["test-.json", "{train}.json"]],
    ["{x}{1,2}", ["{x}1", "{x}2"], ["x1"]],
    ["a+(b).$^|\\", ["a+(b).$^|\\"], ["ab"]],
    ["**a**", ["a", "bab"], ["b"]],
    [".*", [".a"], ["a"]],
  ];
  test.each(meant)("%s", (pattern, yes, no) => {
    const matches = createMatcher(pattern);
    expect(yes.filter((name) => !matches(name))).toEqual([]);
    expect(no.filter(matches)).toEqual([]);
  });

  test("takes no longer for many stars, and no more braces than there may be", () => {
    const matches = createMatcher(`${"*a".repeat(100)}b`);
    expect(matches("a".repeat(250))).toBe(false);
    expect(() => createMatcher("{a,b}".repeat(40))).toThrow("braces stand for more than 1000 names");
  });
});

describe("files that a setting means", () => {
  const folder = folderOf({
    "shards/b.jsonl": "",
    "shards/a.jsonl": "",
    "shards/a.10.jsonl": "",
    "shards/.hidden.jsonl": "",
    "shards/_SUCCESS": "",
    "shards/README.md": "",
    "shards/deep/er/c.jsonl": "",
    "mixed/a.json": "",
    "mixed/a.csv": "",
    "twice/x.jsonl": "",
    "twice/x.jsonl.gz": "",
    "packed/b.jsonl": "",
    "packed/d.jsonl.gz": "",
    "none/readme.txt": "",
    "odd/[ab].jsonl": "",
    "odd/a.jsonl": "",
    "odd/*": "",
    "[set]/x.jsonl": "",
  });
  symlinkSync("..", join(folder, "shards/deep/up"));
  symlinkSync("../shards", join(folder, "none/link"));
  symlinkSync("nowhere.jsonl", join(folder, "odd/dangling.jsonl"));

  test("are sorted, whatever order the disk has, and there once, but for one that is named more often", async () => {
    const three = ["shards/a.10.jsonl", "shards/a.jsonl", "shards/b.jsonl"];
    expect(await found(folder, "shards/*.jsonl")).toEqual(three);
    expect(await found(folder, "shards")).toEqual(three);
    expect(await found(folder, "shards/b.jsonl", "shards/", "shards/../shards/a.jsonl")).toEqual([
      "shards/b.jsonl",
      ...three.slice(0, 2),
    ]);
    expect(await found(folder, "packed")).toEqual(["packed/b.jsonl", "packed/d.jsonl.gz"]);
    expect(await found(folder, "shards", "shards/a.jsonl")).toEqual(three);
    expect(await found(folder, "shards/a.jsonl", "shards/a.jsonl", "shards/[a]*")).toEqual([
      "shards/a.jsonl",
      "shards/a.jsonl",
      "shards/a.10.jsonl",
    ]);
    expect(await findDataFiles([])).toEqual([]);
  });

  test("are found below by **, through no link but one that is named, so that a circle ends", async () => {
    const deep = "shards/deep/er/c.jsonl";
    expect(await found(folder, "shards/**/**/c.jsonl")).toEqual([deep]);
    expect(await found(folder, "**/[ac].jsonl")).toEqual(["odd/a.jsonl", "shards/a.jsonl", deep]);
    expect(await found(folder, "none/link/b.*", "none/l*/b.jsonl")).toEqual(["none/link/b.jsonl"]);
  });

  test("are those of a name that is a pattern too, where there is one; a link to nothing is told when it is read", async () => {
    expect(await found(folder, "odd/[ab].jsonl")).toEqual(["odd/[ab].jsonl"]);
    expect(await found(folder, "odd/*")).toEqual(["odd/*"]);
    expect(await found(folder, "[set]/*.jsonl")).toEqual(["[set]/x.jsonl"]);
    const [dangling = ""] = await found(folder, "odd/d*.jsonl");
    await expect(rowsOf(join(folder, dangling))).rejects.toThrow(
      /cannot read .*dangling\.jsonl: it is a link to nothing\.$/,
    );
  });

  const refused: [string, string, RegExp][] = [
    ["a pattern", "shards/*.json", /nothing matches .*\*\.json: .*shards holds \.hidden\.jsonl, .* and 1 more\.$/],
    ["a pattern where no folder is", "no/such/*.json", /there is no folder .*no\/such, and .* holds \[set\], mixed,/],
    [
      "a folder without data",
      "none",
      /none has no data files .*: it holds link, readme\.txt\. .*none\/\*\*\/\*\.jsonl/,
    ],
    ["a folder with a file twice", "twice", /twice has x\.jsonl and x\.jsonl\.gz, which would be read both/],
    [
      "a folder with data of two kinds",
      "mixed",
      /several kinds \(\.csv, \.json\): it holds a\.csv, a\.json\. Say which:/,
    ],
  ];
  test.each(refused)(
    "%s that means nothing to read is an error that says what lies there",
    async (_, entry, message) => {
      await expect(found(folder, entry)).rejects.toMatchObject({
        code: "ERR_RLSD_DATA",
        message: expect.stringMatching(message),
      });
    },
  );

  test("are read one after the other, rows named by the file that has them", async () => {
    const shards = folderOf({
      "1.jsonl": lines({ prompt: "a" }, { prompt: "" }),
      "2.jsonl": "",
      "3.jsonl.gz": gzipSync(lines({ prompt: "c" })),
    });
    const { examples, problems } = await loadDataset([join(shards, "[1-3].jsonl*")]);
    expect(examples.map(({ id, where }) => [id, relative(shards, where)])).toEqual([
      ["0", "1.jsonl:1"],
      ["2", "3.jsonl.gz:1"],
    ]);
    expect(problems.map(({ where }) => relative(shards, where))).toEqual(["1.jsonl:2"]);
  });
});

test("a pipe is refused, and not waited for", async () => {
  const folder = folderOf({});
  execFileSync("mkfifo", [join(folder, "pipe.jsonl")]);
  await expect(rowsOf(join(folder, "pipe.jsonl"))).rejects.toThrow(
    /pipe\.jsonl: it is no file, but a pipe or a device/,
  );
});

describe("compressed files", () => {
  const rows = Array.from({ length: 5000 }, (_, i) => ({ prompt: `question ${i} ${Math.sin(i)}`, answer: i }));

  test.each([".jsonl.gz", ".ndjson.gz", ".JSONL.GZ"])("%s has the rows of what was compressed", async (ending) => {
    const folder = folderOf({ [`a${ending}`]: gzipSync(`\ufeff${lines(...rows)}`) });
    expect(await rowsOf(join(folder, `a${ending}`))).toEqual(rows);
  });

  test("lists and CSV too, and what was compressed in pieces and put together", async () => {
    const [first, second] = [rows.slice(0, 2000), rows.slice(2000)];
    const folder = folderOf({
      "list.json.gz": gzipSync(JSON.stringify(rows)),
      "table.csv.gz": gzipSync('prompt,answer\r\n"a, b",1\r\n'),
      "two.jsonl.gz": Buffer.concat([gzipSync(lines(...first)), gzipSync(lines(...second))]),
    });
    expect(await rowsOf(join(folder, "list.json.gz"))).toEqual(rows);
    expect(await rowsOf(join(folder, "table.csv.gz"))).toEqual([{ prompt: "a, b", answer: "1" }]);
    expect(await rowsOf(join(folder, "two.jsonl.gz"))).toEqual(rows);
  });

  test("that are cut off, damaged, or not what their names say are an error with the file", async () => {
    const whole = gzipSync(lines(...rows));
    const damaged = Buffer.from(whole);
    damaged.fill(0, 2000, 2100);
    const folder = folderOf({
      "cut.jsonl.gz": whole,
      "damaged.jsonl.gz": damaged,
      "plain.jsonl.gz": lines(...rows),
      "packed.jsonl": whole,
      "cut.json.gz": gzipSync(JSON.stringify(rows)).subarray(0, -6),
      "empty.jsonl.gz": "",
    });
    truncateSync(join(folder, "cut.jsonl.gz"), whole.length - 20);
    const refused = async (name: string, message: RegExp) =>
      expect(rowsOf(join(folder, name))).rejects.toMatchObject({
        code: "ERR_RLSD_DATA",
        message: expect.stringMatching(message),
      });
    await refused("cut.jsonl.gz", /cannot read .*cut\.jsonl\.gz: it ends in the middle/);
    await refused("cut.json.gz", /cannot read .*cut\.json\.gz: it ends in the middle/);
    await refused("damaged.jsonl.gz", /damaged\.jsonl\.gz: its data are damaged/);
    await refused("plain.jsonl.gz", /plain\.jsonl\.gz is not compressed by gzip/);
    await refused("packed.jsonl", /packed\.jsonl is compressed by gzip, but its name does not end in \.gz/);
    await refused("empty.jsonl.gz", /empty\.jsonl\.gz is not compressed by gzip/);
  });

  test("of which a few rows are wanted are not unpacked to their end, and a line without end is not taken in", async () => {
    const folder = folderOf({ "cut.jsonl.gz": gzipSync(lines(...rows)), "bomb.jsonl.gz": "" });
    truncateSync(join(folder, "cut.jsonl.gz"), 70_000);
    const { examples } = await loadDataset([join(folder, "cut.jsonl.gz")], { limit: 2 });
    expect(examples).toHaveLength(2);
    // Pieces of gzip data one behind the other: 320 MiB of spaces in 320 KiB.
    const piece = gzipSync(Buffer.alloc(2 ** 26, " "));
    writeFileSync(join(folder, "bomb.jsonl.gz"), "");
    for (let i = 0; i < 5; i++) appendFileSync(join(folder, "bomb.jsonl.gz"), piece);
    await expect(rowsOf(join(folder, "bomb.jsonl.gz"))).rejects.toMatchObject({
      code: "ERR_RLSD_DATA",
      message: expect.stringMatching(/bomb\.jsonl\.gz:1: the line has no end within 256 MiB/),
    });
  });
});

describe("CSV", () => {
  const csv = async (content: string | Buffer) => rowsOf(join(folderOf({ "a.csv": content }), "a.csv"));

  test("has texts under the names of its first line, as RFC 4180 writes them", async () => {
    const table = [
      "\ufeffquestion,answer,note",
      "2 + 2?,4,",
      '"a, ""b""',
      "and a\r",
      '\u2028line","1,000",""',
      "",
      '5" nails,007,"x"',
    ].join("\r\n");
    expect(await csv(table)).toEqual([
      { question: "2 + 2?", answer: "4", note: "" },
      { question: 'a, "b"\r\nand a\r\r\n\u2028line', answer: "1,000", note: "" },
      { question: '5" nails', answer: "007", note: "x" },
    ]);
    expect(await csv("a\n1\n2")).toEqual([{ a: "1" }, { a: "2" }]);
    expect(await csv('"a","b"\n"",\n')).toEqual([{ a: "", b: "" }]);
    expect(await csv("")).toEqual([]);
  });

  test("rows that do not fit are named by the line where they begin, and the next one is read again", async () => {
    const folder = folderOf({ "a.csv": 'prompt,answer\n"two\nlines",1\na,b,c\n"x"y,2\nonly\nq,3\n' });
    const { examples, problems } = await loadDataset([join(folder, "a.csv")]);
    expect(examples.map(({ messages, answer }) => [messages[0]?.content, answer])).toEqual([
      ["two\nlines", "1"],
      ["q", "3"],
    ]);
    expect(problems.map(({ where, problem }) => [relative(folder, where), problem])).toEqual([
      ["a.csv:4", expect.stringMatching(/^it has 3 fields, but the first line names 2 columns/)],
      ["a.csv:5", expect.stringMatching(/^there is text behind the quote that ends field 1/)],
      ["a.csv:6", expect.stringMatching(/^it has 1 fields/)],
    ]);
  });

  test("has messages and tools as JSON, and a prompt as the text that it is", async () => {
    const messages = [
      { role: "user", content: "q" },
      { role: "assistant", content: "a" },
    ];
    const cell = (value: unknown) => `"${JSON.stringify(value).replaceAll('"', '""')}"`;
    const table = `messages,tools\n${cell(messages)},${cell([{ name: "f" }])}\nplain,\n`;
    const { examples } = await loadDataset([join(folderOf({ "a.csv": table }), "a.csv")]);
    expect(examples.map((e) => [e.messages[0]?.content, e.trace, e.tools.length])).toEqual([
      ["q", "a", 1],
      ["plain", null, 0],
    ]);
    const prompts = folderOf({ "a.csv": `prompt\n${cell(messages)}\n` });
    const asked = await loadDataset([join(prompts, "a.csv")]);
    expect(asked.examples[0]?.messages).toEqual([{ role: "user", content: JSON.stringify(messages) }]);
  });

  test("in another encoding, with a quote that never ends, or with a column twice is refused", async () => {
    const latin = Buffer.from("prompt,answer\nZo\u00eb?,1\nq,2\n", "latin1");
    expect(await csv(latin)).toEqual(["not UTF-8: save the file in that encoding", { prompt: "q", answer: "2" }]);
    await expect(csv(Buffer.from("\ufeffprompt,answer\nq,1\n", "utf16le"))).rejects.toThrow(/a\.csv:1: not UTF-8/);
    await expect(csv(Buffer.from('p\n"a\nZo\u00eb"\n', "latin1"))).rejects.toThrow(/a\.csv:3 is not UTF-8/);
    await expect(csv('p,a\nq,1\n"q,2\nr,3\n')).rejects.toThrow(/a\.csv:3: the row has a quote that begins a field/);
    await expect(csv("p,a,p\n1,2,3\n")).rejects.toThrow(/a\.csv: its first line names two columns "p"/);
  });
});

describe("TSV", () => {
  const tsv = async (content: string | Buffer) => rowsOf(join(folderOf({ "a.tsv": content }), "a.tsv"));

  test("is CSV with tabs in the place of commas, also compressed and in folders", async () => {
    const table = ["question\tanswer\tnote", "2, 3 and 4?\t9\t", '"a\t""b""', 'c"\t1,000\t""', "", "\t\t", "  "].join(
      "\r\n",
    );
    const rows = [
      { question: "2, 3 and 4?", answer: "9", note: "" },
      { question: 'a\t"b"\r\nc', answer: "1,000", note: "" },
      { question: "", answer: "", note: "" },
    ];
    expect(await tsv(table)).toEqual(rows);
    const folder = folderOf({ "part-1.tsv": table, "part-2.tsv.gz": gzipSync(table), "README.md": "" });
    const files = await findDataFiles([folder]);
    expect(files.map((file) => basename(file))).toEqual(["part-1.tsv", "part-2.tsv.gz"]);
    expect(await rowsOf(files[1]!)).toEqual(rows);
  });

  test("rows with another number of fields are named, with what a field with a tab in it needs", async () => {
    const [row] = await tsv("prompt\tanswer\nq\t1\t2\n");
    expect(row).toMatch(/^it has 3 fields, .*: a field with a tab in it stands in quotes$/);
  });
});

test("a first line that another separator divides says which, and what to do", async () => {
  const refused = async (name: string, header: string, message: string) => {
    const file = join(folderOf({ [name]: `${header}\nq;1,2\t3\n` }), name);
    await expect(rowsOf(file)).rejects.toMatchObject({
      code: "ERR_RLSD_DATA",
      message: `${file}: its first line ${message}`,
    });
  };
  const looks = "and looks as if these separated its columns";
  await refused(
    "a.csv",
    "prompt;answer",
    `has no comma, but semicolons, ${looks}: save it with commas, or with tabs as .tsv.`,
  );
  await refused("a.csv", "prompt\tanswer", `has no comma, but tabs, ${looks}: name it .tsv.`);
  await refused("a.tsv", "prompt,answer", `has no tab, but commas, ${looks}: name it .csv.`);
  await refused(
    "a.tsv",
    "prompt;answer",
    `has no tab, but semicolons, ${looks}: save it with commas, or with tabs as .tsv.`,
  );
  const one = join(folderOf({ "a.csv": '"prompt, or question"\nq\n' }), "a.csv");
  expect(await rowsOf(one)).toEqual([{ "prompt, or question": "q" }]);
});

test("the fixtures' lists are read as they were before", async () => {
  const asset = join(__dirname, "../assets/clock/train.jsonl");
  const [folder, text] = [folderOf({}), readFileSync(asset, "utf8")];
  writeFileSync(join(folder, "train.jsonl.gz"), gzipSync(text));
  expect(await rowsOf(join(folder, "train.jsonl.gz"))).toEqual(await rowsOf(asset));
});
