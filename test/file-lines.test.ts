import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileLines } from "../lib/file-lines.js";
import { readRows } from "../lib/trainer/data/read-rows.js";

const file = join(mkdtempSync(join(tmpdir(), "rlsd-lines-")), "lines.jsonl");

async function linesOf(content: string | Buffer): Promise<string[]> {
  writeFileSync(file, content);
  const out: string[] = [];
  for await (const line of fileLines(file)) out.push(line.toString("utf8"));
  return out;
}

async function rowsOf(content: string | Buffer) {
  writeFileSync(file, content);
  const out = [];
  for await (const { row, problem } of readRows(file)) out.push(row ?? problem);
  return out;
}

test("a line ends at a line feed and nowhere else, with a carriage return before it or without", async () => {
  expect(await linesOf("")).toEqual([]);
  expect(await linesOf("\n")).toEqual([""]);
  expect(await linesOf("a\r\n\nb")).toEqual(["a", "", "b"]);
  expect(await linesOf("a\u2028b\u2029c\u0085d\re\nf\r")).toEqual(["a\u2028b\u2029c\u0085d\re", "f"]);
});

test("lines are whole wherever the file is read in pieces", async () => {
  // A stream reads 64 KiB at once: its border falls into a character, behind a carriage return, behind a line feed.
  for (const before of [65535, 65534, 65533]) {
    const lines = ["a".repeat(before), "\u{1f967}", "b".repeat(200_000), "c"];
    expect(await linesOf(lines.join("\r\n"))).toEqual(lines);
  }
});

test("a row has in its texts what JSON allows there, and JSON's white space between them", async () => {
  const row = { question: "one\u2028two\u2029three", answer: "4" };
  expect(await rowsOf(`${JSON.stringify(row)}\n{"answer":\r5}\n`)).toEqual([row, { answer: 5 }]);
});

test("a row in another encoding is refused, and not read as other characters", async () => {
  const row = '{"question": "Zo\u00eb?"}\n';
  const other = Buffer.concat([Buffer.from(row), Buffer.from(row, "latin1"), Buffer.from(row)]);
  const read = { question: "Zo\u00eb?" };
  expect(await rowsOf(other)).toEqual([read, "not UTF-8: save the file in that encoding", read]);
  const utf16 = await rowsOf(Buffer.from(`\ufeff${row}`, "utf16le"));
  expect(utf16[0]).toBe("not UTF-8: save the file in that encoding");
  const list = file.replace("jsonl", "json");
  writeFileSync(list, Buffer.from('[{"question": "Zo\u00eb?"}]', "latin1"));
  await expect(readRows(list).next()).rejects.toThrow(/lines\.json is not UTF-8: save the file in that encoding\.$/);
  writeFileSync(list, '{"data": [], "version": 1}');
  await expect(readRows(list).next()).rejects.toThrow(
    /expected a list of objects but found an object \(data, version\)/,
  );
});
