import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { compiler, cpuLibrary } from "./support/cpu-library.js";

const cxx = compiler();
const folder = mkdtempSync(join(tmpdir(), "rlsd-c-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
if (cxx === undefined) process.stdout.write("not run: calls from C (no C++ compiler)\n");

(cxx === undefined ? describe.skip : describe)("a caller in C who has rlsd.h alone", () => {
  const calls = new Map<string, { status: number; loss: number; words: string }>();
  let library = "";

  function compile(source: string, ...libraries: string[]): string {
    const program = join(folder, "program");
    const flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", `-I${join(__dirname, "../csrc/include")}`];
    execFileSync(process.env.CC ?? "cc", [...flags, source, "-o", program, ...libraries, "-lm"]);
    return program;
  }

  beforeAll(async () => {
    library = await cpuLibrary(cxx!);
    const program = compile(join(__dirname, "../csrc/test/c_calls.c"), "-ldl");
    const env = { ...process.env, RLSD_NUM_THREADS: "4" };
    for (const line of execFileSync(program, [library], { encoding: "utf8", env }).trim().split("\n")) {
      const [name, status, loss, words] = line.split("\t") as [string, string, string, string];
      calls.set(name, { status: Number(status), loss: Number(loss), words });
    }
  }, 600_000);

  test("gets the loss that is worked out by hand, from log-probs, logits and hidden states", () => {
    // A^ 1.1 and 1 of the first sequence; delta -1 and -2 under A < 0 give w beyond 1.2: twice 1.1 of the second.
    expect(calls.get("0")).toEqual({ status: 0, loss: 0.025, words: "" });
    // Equal logits: log P = -log 8 = -2.079, delta 1.579, 0.079, -1.921, -3.921.
    expect(calls.get("1")).toMatchObject({ status: 0, words: "" });
    expect(calls.get("4")).toEqual(calls.get("1"));
    // The teacher's logits are equal: delta -1.079, -0.079, 0.921, 1.921, and all weights but the second at 0.8.
    const weighed = 0.9 + (1 + Math.exp(2 - Math.log(8))) / 2 - 0.9 - 0.9;
    expect(calls.get("5")).toEqual({ status: 0, loss: expect.closeTo(-weighed / 4, 4), words: "" });
    expect(calls.get("1")!.loss).toBeCloseTo((2.2 - 1.1 - (1 + (Math.exp(Math.log(8) - 2) - 1) / 2)) / 4, 4);
  });

  test("finds the program of docs/c.md to compile as printed, and to print what stands below it", () => {
    const page = readFileSync(join(__dirname, "../docs/c.md"), "utf8");
    const [, code, output] = /^```c\n(.*?)^```\n\n```\n(.*?)^```/ms.exec(page)!;
    const source = join(folder, "loss.c");
    writeFileSync(source, code!);
    expect(execFileSync(compile(source, library, `-Wl,-rpath,${dirname(library)}`), { encoding: "utf8" })).toBe(output);
  });

  test("gets no divergence of a teacher from itself, and the log-probs of equal logits", () => {
    expect(calls.get("2")).toEqual({ status: 0, loss: 0, words: "" });
    expect(calls.get("3")).toEqual({ status: 0, loss: -2.0794, words: "" });
  });

  test("may close the library: its threads stay, so that it does", () => {
    // r = 1 and A = -1 everywhere.
    expect(calls.get("6")).toEqual({ status: 0, loss: 1, words: "" });
    expect([...calls.keys()].filter((name) => name.startsWith("threads: "))).toEqual([
      process.platform === "linux" ? "threads: 4" : "threads: 0",
    ]);
    expect([...calls.keys()].filter((name) => name.startsWith("closed: "))).toEqual(["closed: there"]);
  });

  test("may lay rows of logits and of their gradient as far apart as it likes: nothing is written between", () => {
    const worst = [...calls].filter(([name]) => name.endsWith(": worst"));
    expect(worst.map(([, { loss }]) => loss)).toEqual([0, 0, 0, 0, 0]);
  });

  test("is told of every wrong argument before an array is read, in words", () => {
    const wrong = [...calls].filter(([name]) => !/^\d$|apart|closed|threads/.test(name));
    expect(wrong.length).toBe(61);
    expect(wrong.filter(([, { status, words }]) => status !== 1 || !words.startsWith("Expected "))).toEqual([]);
    expect(calls.get("objective.surrogate = 42")!.words).toBe("Expected an rlsd_surrogate but received 42.");
    expect(calls.get("objective.kl_coef = 0.1")!.words).toBe("Expected refLogProbs (N = 4), as klCoef is above 0.");
  });
});
