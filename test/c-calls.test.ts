import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compiler, cpuLibrary } from "./support/cpu-library.js";

const cxx = compiler();
const folder = mkdtempSync(join(tmpdir(), "rlsd-c-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
if (cxx === undefined) process.stdout.write("not run: calls from C (no C++ compiler)\n");

(cxx === undefined ? describe.skip : describe)("a caller in C who has rlsd.h alone", () => {
  const calls = new Map<string, { status: number; loss: number; words: string }>();

  beforeAll(async () => {
    const library = await cpuLibrary(cxx!);
    const source = join(__dirname, "../csrc/test/c_calls.c");
    const program = join(folder, "c_calls");
    const flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", `-I${join(__dirname, "../csrc/include")}`];
    execFileSync(process.env.CC ?? "cc", [...flags, source, "-o", program, "-ldl", "-lm"]);
    for (const line of execFileSync(program, [library], { encoding: "utf8" }).trim().split("\n")) {
      const [name, status, loss, words] = line.split("\t") as [string, string, string, string];
      calls.set(name, { status: Number(status), loss: Number(loss), words });
    }
  }, 600_000);

  test("gets the loss that is worked out by hand, from log-probs and from logits", () => {
    // A^ 1.1 and 1 of the first sequence; delta -1 and -2 under A < 0 give w beyond 1.2: twice 1.1 of the second.
    expect(calls.get("0")).toEqual({ status: 0, loss: 0.025, words: "" });
    // Equal logits: log P = -log 8 = -2.079, delta 1.579, 0.079, -1.921, -3.921.
    expect(calls.get("1")).toMatchObject({ status: 0, words: "" });
    expect(calls.get("1")!.loss).toBeCloseTo((2.2 - 1.1 - (1 + (Math.exp(Math.log(8) - 2) - 1) / 2)) / 4, 4);
  });

  test("gets no divergence of a teacher from itself, and the log-probs of equal logits", () => {
    expect(calls.get("2")).toEqual({ status: 0, loss: 0, words: "" });
    expect(calls.get("3")).toEqual({ status: 0, loss: -2.0794, words: "" });
  });

  test("is told of every wrong argument before an array is read, in words", () => {
    const wrong = [...calls].filter(([name]) => !/^\d$/.test(name));
    expect(wrong.length).toBe(39);
    expect(wrong.filter(([, { status, words }]) => status !== 1 || !words.startsWith("Expected "))).toEqual([]);
    expect(calls.get("objective.surrogate = 42")!.words).toBe("Expected an rlsd_surrogate but received 42.");
    expect(calls.get("objective.kl_coef = 0.1")!.words).toBe("Expected refLogProbs (N = 4), as klCoef is above 0.");
  });
});
