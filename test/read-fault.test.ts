import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFault } from "../lib/read-fault.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-fault-"));
mkdirSync(join(folder, "runs/first"), { recursive: true });
writeFileSync(join(folder, "questions.jsonl"), "{}");

function faultOf(path: string): string {
  try {
    readFileSync(path);
  } catch (error) {
    return readFault(path, error);
  }
  return "none";
}

test("a file that is not there is told with what has a name like it", () => {
  expect(faultOf(join(folder, "question.jsonl"))).toBe(`it does not exist; ${folder} has questions.jsonl`);
  expect(faultOf(join(folder, "other.csv"))).toBe("it does not exist");
});

test("of a path the first folder that is missing is told", () => {
  expect(faultOf(join(folder, "run/first/config.json"))).toBe(
    `there is no folder ${join(folder, "run")}; ${folder} has runs`,
  );
  expect(faultOf(join(folder, "nowhere/at/all"))).toBe(`there is no folder ${join(folder, "nowhere")}`);
});

test("what else may be wrong is told in words, and what is not known as it came", () => {
  expect(faultOf(folder)).toBe("it is a folder");
  expect(readFault("x", Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" }))).toBe(
    "permission denied",
  );
  expect(readFault("x", new Error("odd"))).toBe("odd");
  expect(readFault("x", "odd")).toBe("odd");
});

(process.platform === "win32" ? test.skip : test)("links are followed no further than they lead", () => {
  symlinkSync(join(folder, "gone"), join(folder, "dangling"));
  symlinkSync(join(folder, "circle"), join(folder, "circle"));
  expect(faultOf(join(folder, "dangling"))).toBe("it is a link to nothing");
  expect(faultOf(join(folder, "circle"))).toBe("a link on the path leads to itself");
  expect(faultOf(join(folder, "questions.jsonl", "x"))).toBe("a part of the path is a file");
});
