import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createVerifier, listVerifiers } from "../../lib/verifiers/registry.js";
import { editDistance, normalizeText } from "../../lib/verifiers/text.js";
import { check, reward, root, sample } from "./support.js";

describe("choice", () => {
  test.each([
    ["The answer is B.", "B", 1],
    ["The answer is (B) because it is larger.", "B", 1],
    ["I first thought of A. The correct option is **C**", "C", 1],
    ["\\boxed{\\text{D}}", "D", 1],
    ["<answer>b</answer>", "B", 1],
    ["B", "B", 1],
    ["Some thoughts.\n\nB", "B", 1],
    ["Answer: B) the second one", "B", 1],
    ["The answer is A. No wait, the answer is C.", "C", 1],
    ["<think>the answer is A</think>The answer is C.", "C", 1],
  ])("%j is %s", async (completion, answer, expected) => {
    expect(await reward("choice", completion, { answer })).toBe(expected);
  });

  test.each([
    ["a first word that starts with the letter", "Because the triangle is isosceles", "B"],
    ["a first word that starts with the letter and a number", "Hence 12", "H"],
    ["an article", "A triangle has three sides.", "A"],
    ["two letters at once", "The answer is A or B", "A"],
    ["a list of all letters", "The answer is A, B, C, D", "A"],
    ["a list of all letters in a box", "\\boxed{ABCD}", "A"],
    ["a thought that never ended", "<think>the answer is B", "B"],
    ["another letter in a box than in the prose", "The answer is B \\boxed{C}", "B"],
  ])("rewards no %s", async (_, completion, answer) => {
    expect(await reward("choice", completion, { answer })).toBe(0);
  });

  test("a row without a letter is refused with its field", () => {
    expect(check("choice", { answer: "Paris" })).toThrow(
      /field "answer" to be one letter of ABCDEFGHIJ, a number from 0 to 9 but found "Paris"/,
    );
    expect(check({ type: "choice", answer: "label" }, { label: "c" })).not.toThrow();
  });

  const cities = ["Rome", "Paris", "Bern", "New  York"];
  const golds: [string, Record<string, unknown>, string, object?][] = [
    ["a number from 0, as in MMLU", { answer: 1, choices: cities }, "B. Paris"],
    [
      "a number as text, as in CSV, with choices as JSON",
      { answer: " 3", choices: JSON.stringify(cities) },
      "D. New  York",
    ],
    ["a number from 1", { answer: 1, choices: cities }, "A. Rome", { first: 1 }],
    ["a number without a list", { answer: 2 }, "C"],
    [
      "a choice's text, ARC's list",
      { answer: "new york", choices: { text: cities, label: ["1", "2", "3", "4"] } },
      "D. New  York",
    ],
    [
      "choices that are numbers in a column of another name",
      { key: 1, options: [10, 20] },
      "B. 20",
      { answer: "key", field: "options" },
    ],
  ];
  test.each(golds)("the right answer is %s", async (_, row, told, options = {}) => {
    const spec = { type: "choice", ...options };
    const verifier = createVerifier(spec);
    expect(() => verifier.check?.(row)).not.toThrow();
    expect(verifier.answerOf?.(row)).toBe(told);
    expect(await reward(spec, `The answer is ${told[0]}.`, row)).toBe(1);
    expect(await reward(spec, `The answer is ${told[0] === "A" ? "B" : "A"}.`, row)).toBe(0);
  });

  test("a choice's whole text is its letter where the row lists them, and no letter beyond them is one", async () => {
    const row = { answer: 1, choices: ["Rome", "Paris", "the same", "The  same."] };
    expect(await reward("choice", "\\boxed{\\text{paris}}", row)).toBe(1);
    expect(await reward("choice", "\\boxed{paris}", row)).toBe(1);
    expect(await reward("choice", "<answer>**Paris**</answer>", row)).toBe(1);
    expect(await reward("choice", "The answer is Rome.", row)).toBe(0);
    expect(await reward("choice", "The answer is Paris or Rome.", row)).toBe(0);
    const verdict = async (said: string) => createVerifier("choice").verify(sample(said, row));
    expect(await verdict("The answer is E.")).toMatchObject({
      reward: 0,
      reason: "no-answer",
      detail: { expected: "B" },
    });
    expect(await verdict("The answer is the same.")).toMatchObject({ reason: "no-answer" });
  });

  const refused: [string, Record<string, unknown>, RegExp][] = [
    [
      "a number beyond the choices",
      { answer: 4, choices: cities },
      /one letter of ABCD, a number from 0 to 3 or the text of one of "choices".*found 4/,
    ],
    ["a number below them", { answer: -1, choices: cities }, /found -1/],
    ["half a number", { answer: 0.5, choices: cities }, /found 0\.5/],
    ["a text that is none of them", { answer: "Oslo", choices: cities }, /found "Oslo"/],
    ["a letter that is another choice's text", { answer: "B", choices: ["B", "A"] }, /mean one of them but found "B"/],
    ["a number that is another choice's text", { answer: "1", choices: ["1", "2"] }, /mean one of them but found "1"/],
    ["more choices than letters", { answer: 0, choices: Array.from({ length: 11 }, String) }, /at most 10 choices/],
  ];
  test.each(refused)("%s is refused", (_, row, message) => {
    expect(check("choice", row)).toThrow(message);
  });

  test("a sum tells what its choice tells, and a letter is told as it stands", () => {
    const length = { type: "length", max: 9, buffer: 1 };
    const verifier = createVerifier({ type: "sum", parts: [{ verifier: length }, { verifier: "choice" }] });
    expect(verifier.answerOf?.({ answer: 1, choices: cities })).toBe("B. Paris");
    expect(verifier.answerOf?.({ answer: "B", choices: cities })).toBeUndefined();
  });
});

describe("boolean", () => {
  test.each([
    ["Yes.", true, 1],
    ["The answer is no", false, 1],
    ["So the final answer is: **True**", true, 1],
    ["No, that is false", true, 0],
    ["yes or no", true, 0],
    ["The answer is yes/no", false, 0],
    ["Nothing follows from that", false, 0],
    ["\\boxed{\\text{False}}", "no", 1],
    ['The answer is "yes".', true, 1],
    ["Answer: `no`", false, 1],
    ["Answer: **__yes__**", true, 1],
    ["Answer: *‘no’*", false, 1],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("boolean", completion, { answer })).toBe(expected);
  });

  test("a row that is neither is refused", () => {
    expect(check("boolean", { answer: "maybe" })).toThrow(/"answer"/);
  });
});

describe("numeric", () => {
  test.each([
    ["The answer is 1,234.5", 1234.5, 1],
    ["#### 72", "72", 1],
    ["She has 72 left, out of 100.\nShe has 72", 72, 1],
    ["\\boxed{\\frac{3}{4}}", 0.75, 1],
    ["The answer is 3/4", 0.75, 1],
    ["\\boxed{25\\%}", 0.25, 1],
    ["the answer is 6.02 \\times 10^{23}", 6.02e23, 1],
    ["Answer: -5", -5, 1],
    ["Answer: −5", -5, 1],
    ["The answer is $18", 18, 1],
    ["\\boxed{3, 4}", 3, 0],
    ["\\boxed{3 or 4}", 4, 0],
    ["\\boxed{3}\n\\boxed{4}", 3, 0],
    ["no number at all", 0, 0],
    ["The answer is 3 or 4", 4, 0],
    ["The answer is 0x1F", 31, 1],
    ["The answer is -0X10", "-16", 1],
    ["The answer is 0x10", 0, 0],
    ["The answer is 0", "0x0", 1],
    ["The answer is 6.5E2", 650, 1],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("numeric", completion, { answer })).toBe(expected);
  });

  test("the tolerance is absolute or relative, whichever is wider, and may be graded", async () => {
    expect(await reward({ type: "numeric", absolute: 0.5 }, "10.4", { answer: 10 })).toBe(1);
    expect(await reward({ type: "numeric", relative: 0.1 }, "1090", { answer: 1000 })).toBe(1);
    expect(await reward({ type: "numeric", relative: 0.1 }, "1110", { answer: 1000 })).toBe(0);
    expect(await reward({ type: "numeric", absolute: 1, graded: 5 }, "13", { answer: 10 })).toBeCloseTo(0.5, 12);
  });

  test("percent signs may be ignored", async () => {
    expect(await reward({ type: "numeric", percent: false }, "25%", { answer: 25 })).toBe(1);
  });
});

describe("text", () => {
  test("normalisation is by option", () => {
    const all = { ignoreCase: true, ignorePunctuation: true, ignoreArticles: true };
    expect(normalizeText("  The  “Ｑｕｉｃｋ”  fox! ", all)).toBe("quick fox");
    const none = { ignoreCase: false, ignorePunctuation: false, ignoreArticles: false };
    expect(normalizeText(" The fox! ", none)).toBe("The fox!");
  });

  test("edit distance is Levenshtein's", () => {
    expect(editDistance([..."kitten"], [..."sitting"])).toBe(3);
    expect(editDistance([], [..."abc"])).toBe(3);
  });

  test("exact, word error rate and character error rate", async () => {
    const row = { answer: "the quick brown fox" };
    expect(await reward("text", "The quick, brown fox!", row)).toBe(1);
    const many = { answer: [...Array.from({ length: 200_000 }, (_, i) => `${i}`), "the fox"] };
    expect(await reward("text", "The fox", many)).toBe(1);
    expect(await reward({ type: "text", metric: "wer" }, "the quick red fox", row)).toBe(0.75);
    expect(await reward({ type: "text", metric: "cer" }, "the quick brown fax", row)).toBeCloseTo(18 / 19, 12);
    expect(await reward({ type: "text", metric: "wer" }, "word ".repeat(100), row)).toBe(0);
    expect(await reward("text", "Rome", { answer: ["Paris", "Rome"] })).toBe(1);
    expect(await reward({ type: "text", tag: "answer" }, "<answer>Rome</answer>", { answer: "rome" })).toBe(1);
    const tagged = { type: "text", tag: "final" };
    expect(await reward(tagged, "<final>Rome</final> <answer>Paris</answer>", { answer: "Rome" })).toBe(1);
    expect(await reward(tagged, "\\boxed{Rome}, so the answer is Rome", { answer: "Rome" })).toBe(0);
    expect(await reward(tagged, "<final>Rome", { answer: "Rom" })).toBe(0);
  });

  test("markup inside an answer is not altered", async () => {
    const exact = { type: "text", ignoreCase: false, ignorePunctuation: false };
    expect(await reward(exact, "<b>\n  x</b>", { answer: "<b>x</b>" })).toBe(0);
  });

  test("a right text without a letter would match everything, so it is refused", () => {
    expect(check("text", { answer: "..." })).toThrow(/"answer"/);
    expect(check("text", { answer: [] })).toThrow(/"answer"/);
  });
});

describe("shapers", () => {
  test("length falls linearly over the buffer, and a cut completion gets nothing", async () => {
    const spec = { type: "length", max: 10, buffer: 4 };
    const words = (n: number) => "word ".repeat(n);
    expect(await reward(spec, words(6))).toBe(1);
    expect(await reward(spec, words(8))).toBe(0.5);
    expect(await reward(spec, words(10))).toBe(0);
    expect(await reward(spec, words(2), {}, { finish: "length" })).toBe(0);
    expect(await reward({ type: "length", max: 10, min: 4 }, words(1))).toBe(0.25);
  });

  test("repetition is the share of new n-grams", async () => {
    expect(await reward({ type: "repetition", n: 2 }, "a b c d e")).toBe(1);
    expect(await reward({ type: "repetition", n: 1 }, "a a a a")).toBe(0.25);
    expect(await reward({ type: "repetition", unit: "character", n: 1 }, "ああああ")).toBe(0.25);
  });
});

describe("docs/verifiers.md", () => {
  const page = readFileSync(join(root, "docs/verifiers.md"), "utf8");

  test.each(listVerifiers().map(({ type }) => type))("names %s and each of its options", (type) => {
    const rows = page.split("\n").filter((line) => line.startsWith(`| \`${type}\` `));
    expect(rows).toHaveLength(1);
    let message = "";
    try {
      createVerifier({ type, zzzzzzzzzzzzzzzzzz: 1 });
    } catch (error) {
      message = String(error);
    }
    const options = /Expected one of (.*)\./.exec(message)?.[1]?.split(", ") ?? [];
    expect(options.length > 0 || /takes none/.test(message)).toBe(true);
    for (const option of options) expect(page).toContain(`\`${option}\``);
  });
});
