import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { createVerifier } from "../../lib/verifiers/registry.js";
import type { Verdict, Verifier } from "../../lib/verifiers/verifier.js";
import { never, root, sample } from "./support.js";

interface Case {
  readonly id: string;
  readonly gold: string;
  readonly pred: string;
  readonly expected: number;
  readonly options?: { readonly precision?: number; readonly allow_set_relation_comp?: boolean };
}

const made: Verifier[] = [];

function math(options: Record<string, unknown> = {}): Verifier {
  const verifier = createVerifier({ type: "math", workers: 2, ...options });
  made.push(verifier);
  return verifier;
}

let plain: Verifier;
const judge = (answer: unknown, completion: string, verifier: Verifier = plain): Promise<Verdict> =>
  verifier.verify(sample(completion, { answer }), never);

beforeAll(async () => {
  plain = math();
});
afterAll(() => Promise.all(made.map((verifier) => verifier.dispose?.())));

describe("the published cases of Math-Verify", () => {
  const load = <T>(name: string): T => JSON.parse(readFileSync(join(root, "test/fixtures/math-verify", name), "utf8"));
  const cases = load<readonly Case[]>("cases.json");
  const exceptions = load<Readonly<Record<string, { readonly ours: number; readonly why: string }>>>("differs.json");
  const verdicts = new Map<string, Verdict>();

  beforeAll(async () => {
    const verifiers = new Map<string, Verifier>();
    const verifierFor = ({ options }: Case) => {
      const chosen = { decimals: options?.precision ?? 6, inequalityForSet: options?.allow_set_relation_comp ?? false };
      const key = JSON.stringify(chosen);
      const known = verifiers.get(key) ?? math({ ...chosen, workers: 1 });
      verifiers.set(key, known);
      return known;
    };
    await Promise.all(
      cases.map(async (one) => verdicts.set(one.id, await judge(one.gold, one.pred, verifierFor(one)))),
    );
  });

  test.each(cases.map((one) => [one.id, one] as const))("%s", (id, { expected }) => {
    expect(verdicts.get(id)?.reward).toBe(exceptions[id]?.ours ?? expected);
  });

  test("every difference names a case, differs, and gives its reason", () => {
    for (const [id, { ours, why }] of Object.entries(exceptions)) {
      expect(cases.find((one) => one.id === id)?.expected).not.toBe(ours);
      expect(why.length).toBeGreaterThan(20);
    }
  });
});

describe("equal answers", () => {
  test.each([
    ["a fraction and its decimal", "1/2", "0.5"],
    ["a fraction and one not reduced", "\\frac{1}{2}", "\\frac{2}{4}"],
    ["a percentage and its value", "0.5", "50\\%"],
    ["a percentage and its number", "50\\%", "50"],
    ["a number and it as a percentage", "50", "50\\%"],
    ["units of one dimension", "5 \\text{ km}", "5000\\text{ m}"],
    ["square units in words", "12 \\text{ cm}^2", "12 \\text{ square centimeters}"],
    ["a missing unit", "5 \\text{ km}", "5"],
    ["a unit that nobody knows", "5", "5 \\text{ cats}"],
    ["hours and minutes", "6 \\text{ hours}", "360 \\text{ minutes}"],
    ["a factored polynomial", "x^2-1", "(x-1)(x+1)"],
    ["a cancelled fraction", "\\frac{x^2-1}{x-1}", "x+1"],
    ["surds", "2\\sqrt{2}", "\\sqrt{8}"],
    ["nested surds", "\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt{2}"],
    ["nested surds that cancel", "0", "\\sqrt{3+2\\sqrt2}-1-\\sqrt2"],
    ["a set in another order", "\\{1,2,3\\}", "3,2,1"],
    ["an interval and the inequality asked for", "x\\le 3", "(-\\infty,3]"],
    ["all but a point", "x\\neq 1", "(-\\infty,1)\\cup(1,\\infty)"],
    ["an absolute value below a bound", "|x|<2", "(-2,2)"],
    ["the real line", "\\mathbb{R}", "(-\\infty,\\infty)"],
    ["the line without a point", "\\mathbb{R}\\setminus\\{1\\}", "(-\\infty,1)\\cup(1,\\infty)"],
    ["a value and its assignment", "3", "x=3"],
    ["an equation solved otherwise", "y=2x+1", "y-2x=1"],
    ["assignments and a pair", "x=2,y=3", "(2,3)"],
    ["assignments in another order", "x=2,y=3", "y=3,x=2"],
    ["factorials", "10!", "3628800"],
    ["binomials", "\\binom{10}{3}", "120"],
    ["logarithms", "\\ln 4", "2\\ln 2"],
    ["a logarithm with a base", "\\log_2 8", "3"],
    ["degrees in a function", "\\sin 30^\\circ", "\\frac12"],
    ["an identity of trigonometry", "\\cos 2x", "1-2\\sin^2 x"],
    ["exponentials", "e^{x+y}", "e^x e^y"],
    ["a sum and its closed form", "\\frac{n(n+1)}{2}", "\\sum_{k=1}^{n} k"],
    ["a complex number", "3+4i", "4i+3"],
    ["scientific notation", "1.5\\times 10^{3}", "1500"],
    ["thousands", "1234", "1{,}234"],
    ["a pair that looks like thousands", "(1,234)", "(1,234)"],
    ["a ratio", "3:4", "6:8"],
    ["a mixed number", "12\\frac{1}{2}", "12.5"],
    ["a repeating decimal", "\\frac{1}{6}", "0.1\\overline{6}"],
    ["words", "\\text{Monday}", "\\text{monday}"],
    ["a letter in brackets", "\\text{(A)}", "A"],
  ])("%s", async (_, gold, given) => {
    expect(await judge(gold, `\\boxed{${given}}`)).toMatchObject({ reward: 1 });
  });
});

describe("different answers", () => {
  test.each([
    ["units of one dimension", "5 \\text{ km}", "5\\text{ m}"],
    ["units of two dimensions", "5 \\text{ km}", "5\\text{ kg}"],
    ["a rounded value of an exact one", "\\frac{1}{3}", "0.33"],
    ["a rounded pi", "\\pi", "3.14"],
    ["a root without the absolute value", "\\sqrt{x^2}", "x"],
    ["a tuple in another order", "(1,2,3)", "(3,2,1)"],
    ["an open and a closed interval", "[1,2]", "(1,2)"],
    ["an inequality for a set", "(-\\infty,3]", "x\\le 3"],
    ["another unknown", "x<1", "y<1"],
    ["values exchanged", "x=2,y=3", "x=3,y=2"],
    ["tiny fractions", "\\frac{1}{2004!}", "\\frac{1}{2006!}"],
    ["tiny powers", "\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"],
    ["a sign", "-3", "3"],
    ["a subscript", "a_1", "a_2"],
    ["a list and one of its values", "2", "1 \\text{ or } 2"],
    ["solutions run together", "34", "x=3\\text{ or }4"],
    ["times of day", "12:00", "1:00"],
    ["an integral for its value", "1/2", "\\int_0^1 x dx"],
  ])("%s", async (_, gold, given) => {
    expect(await judge(gold, `\\boxed{${given}}`)).toMatchObject({ reward: 0 });
  });
});

describe("extraction", () => {
  test.each([
    ["the last of several boxes", "3", "I think \\boxed{2}. Wait, no.\n\n\\boxed{3}", 1],
    ["boxes on lines of their own are one list", "2", "\\boxed{1}\n\\boxed{2}\n\\boxed{3}", 0],
    ["a list of boxes is a list", "2", "\\boxed{1}, \\boxed{2}, \\boxed{3}", 0],
    ["nothing inside an unfinished thought", "7", "<think>\\boxed{7}", 0],
    ["only what follows a thought", "7", "<think>\\boxed{3}</think> The answer is \\boxed{7}", 1],
    ["the phrase", "7", "The answer is 7, since 3 + 4 = 7.", 1],
    ["what directly follows the phrase", "5", "The answer is 5 because the sum is 12.", 1],
    ["what the announced sentence comes to", "12", "Answer: the area of $ABC$ is 12. There is 1 other.", 1],
    ["an announcement on a line of its own", "12", "**Final Answer**\n\nThe area is 12.", 1],
    ["a rounded announcement", "12", "The answer is approximately equal to $12$.", 1],
    ["the tag", "7", "2 and 3 <answer>7</answer>", 1],
    ["the last formula", "7", "First $x = 3$. So we get $x = 7$.", 1],
    ["four number signs", "7", "2+5\n#### 7", 1],
    ["the last number", "7", "That makes 3, and so 7.", 1],
    ["words after the phrase", "Monday", "The answer is Monday.", 1],
    ["a power in prose", "100000", "The answer is 10^5.", 1],
    ["a product of powers in prose", "300", "That is 3 × 10^2 in all.", 1],
    ["a power in prose, not its base", "10", "The answer is 10^5.", 0],
    ["bold type", "5", "The answer is **5** 6 of them were left.", 1],
    ["a dollar amount", "72", "She earns $72.", 1],
    ["nothing", "7", "I do not know", 0],
    ["nothing at all", "7", "", 0],
  ])("%s", async (_, gold, completion, expected) => {
    expect((await judge(gold, completion)).reward).toBe(expected);
  });

  test("a tag that is asked for is the only place", async () => {
    const tagged = math({ tag: "final", workers: 1 });
    expect((await judge("7", "\\boxed{7}", tagged)).reward).toBe(0);
    expect((await judge("7", "<final>\\boxed{7}</final>", tagged)).reward).toBe(1);
  });

  test("the detail says what was read, from where, and what it was compared with", async () => {
    const { detail } = await judge("\\frac12", "so \\boxed{0.5}");
    expect(detail).toEqual({ extracted: "0.5", from: "boxed", expected: "\\frac12", by: "value" });
  });
});

test("random products equal their expansions, and nothing else", async () => {
  const small = fc.integer({ min: -9, max: 9 });
  const off = fc.integer({ min: 1, max: 9 });
  const property = fc.asyncProperty(small, small, off, async (a, b, c) => {
    const given = `\\boxed{(x+${a})(x+${b})}`.replaceAll("+-", "-");
    const expanded = (last: number) => `x^2+${a + b}x+${last}`.replaceAll("+-", "-");
    expect((await judge(expanded(a * b), given)).reward).toBe(1);
    expect((await judge(expanded(a * b + c), given)).reward).toBe(0);
  });
  await fc.assert(property, { numRuns: 60, seed: 7 });
});

test("random fractions equal their decimals to six places, and not others", async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: -999, max: 999 }),
    fc.integer({ min: 1, max: 99 }),
    async (n, d) => {
      const gold = `\\frac{${n}}{${d}}`;
      expect((await judge(gold, `\\boxed{${(n / d).toFixed(9)}}`)).reward).toBe(1);
      expect((await judge(gold, `\\boxed{${(n / d + 0.0001).toFixed(9)}}`)).reward).toBe(0);
      expect((await judge(gold, `\\boxed{\\frac{${n * 3}}{${d * 3}}}`)).reward).toBe(1);
      expect((await judge(gold, `\\boxed{\\frac{${n * 3 + 1}}{${d * 3}}}`)).reward).toBe(0);
    },
  );
  await fc.assert(property, { numRuns: 60, seed: 7 });
});

describe("what cannot be decided is null, never 0", () => {
  test.each([
    ["a formula that is not read, where the right answer is one", "x^2", "\\int 2x dx"],
    ["numbers too large for either side", "2^{1000000}", "2^{1000001}"],
  ])("%s", async (_, gold, given) => {
    expect(await judge(gold, `\\boxed{${given}}`)).toMatchObject({ reward: null, reason: "undecided" });
  });

  test("a row without an answer", async () => {
    expect(await judge(undefined, "\\boxed{1}")).toMatchObject({ reward: null, reason: "gold" });
  });
});

describe("rows", () => {
  const check =
    (answer: unknown, options = {}) =>
    () =>
      math(options).check?.({ answer });

  test("a right answer that cannot be read is refused, naming the field and what it holds", () => {
    expect(check(undefined)).toThrow(/field "answer" to be an answer.*found nothing/);
    expect(check("  ")).toThrow(/"answer"/);
    expect(check("\\begin{cases} 1 \\\\ 2 \\end{cases}")).toThrow(/begin{cases}/);
    expect(check("\\begin{cases} 1 \\\\ 2 \\end{cases}", { allowUnreadable: true })).not.toThrow();
  });

  test("numbers, formulas and worked solutions are accepted", () => {
    for (const answer of [3, 2n ** 70n, "\\frac12", "So the answer is \\boxed{3}."])
      expect(check(answer)).not.toThrow();
  });
});

describe("answers made to be slow", () => {
  const n = 20_000;
  test.each([
    ["braces that never close", "{".repeat(n)],
    ["boxes that never close", "\\boxed{".repeat(n)],
    ["dollars", "$".repeat(n)],
    ["backslashes", "\\".repeat(n)],
    ["white space behind the phrase", `answer ${" ".repeat(n)}`],
    ["the phrase over and over", "the answer is ".repeat(n / 10)],
    ["digits", `\\boxed{${"1".repeat(n)}}`],
    ["commas", `\\boxed{${"1,".repeat(n)}}`],
    ["parentheses", `\\boxed{${"(".repeat(n)}}`],
    ["nested fractions", `\\boxed{${"\\frac{1}{".repeat(500)}1${"}".repeat(500)}}`],
    ["a tower of powers", "\\boxed{9^{9^{9^{9}}}}"],
    ["a factorial of a factorial", "\\boxed{((100!)!)!}"],
    ["a long sum", "\\boxed{\\sum_{k=1}^{1000000000} k}"],
    ["a long list", `\\boxed{${Array.from({ length: 300 }, (_, i) => i).join(",")}}`],
  ])("%s", async (_, completion) => {
    const started = performance.now();
    const { reward } = await judge("7", completion);
    expect(reward === 1).toBe(false);
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});
