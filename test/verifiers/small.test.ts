import { readFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { bestAssignment, boxIou, spanIou } from "../../lib/verifiers/iou.js";
import { createVerifier, listVerifiers, type VerifierSpec } from "../../lib/verifiers/registry.js";
import { editDistance, normalizeText } from "../../lib/verifiers/text.js";
import type { Sample, Verdict } from "../../lib/verifiers/verifier.js";
import { ensureBuilt, never, root, sample } from "./support.js";

async function judge(
  spec: VerifierSpec,
  completion: string,
  row: Record<string, unknown> = {},
  more: Partial<Sample> = {},
): Promise<Verdict> {
  const verifier = createVerifier(spec);
  try {
    return await verifier.verify(sample(completion, row, more), never);
  } finally {
    await verifier.dispose?.();
  }
}

const reward = async (...call: Parameters<typeof judge>) => (await judge(...call)).reward;
const check = (spec: VerifierSpec, row: Record<string, unknown>) => () => createVerifier(spec).check?.(row);

beforeAll(ensureBuilt);

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
      /field "answer" to be one letter of ABCDEFGHIJ but found "Paris"/,
    );
    expect(check({ type: "choice", answer: "label" }, { label: "c" })).not.toThrow();
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
    expect(await reward({ type: "text", metric: "wer" }, "the quick red fox", row)).toBe(0.75);
    expect(await reward({ type: "text", metric: "cer" }, "the quick brown fax", row)).toBeCloseTo(18 / 19, 12);
    expect(await reward({ type: "text", metric: "wer" }, "word ".repeat(100), row)).toBe(0);
    expect(await reward("text", "Rome", { answer: ["Paris", "Rome"] })).toBe(1);
    expect(await reward({ type: "text", tag: "answer" }, "<answer>Rome</answer>", { answer: "rome" })).toBe(1);
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

describe("box-iou", () => {
  test("is intersection over union", () => {
    expect(boxIou([0, 0, 2, 2], [1, 1, 3, 3])).toBeCloseTo(1 / 7, 12);
    expect(boxIou([0, 0, 1, 1], [2, 2, 3, 3])).toBe(0);
    expect(boxIou([0, 0, 0, 0], [0, 0, 0, 0])).toBe(0);
  });

  test("the matching is the best one, not the first", () => {
    const weights = [
      [0.9, 0.8],
      [0.85, 0.1],
    ];
    expect(bestAssignment(weights)).toBeCloseTo(1.65, 12);
    expect(bestAssignment([[0.2], [0.7], [0.4]])).toBeCloseTo(0.7, 12);
  });

  test.each([
    ["[0, 0, 2, 2]", [0, 0, 2, 2], 1],
    ['The box is [[0,0,2,2]], "certainly".', [0, 0, 2, 2], 1],
    [
      "```json\n[[0,0,2,2],[5,5,6,6]]\n```",
      [
        [5, 5, 6, 6],
        [0, 0, 2, 2],
      ],
      1,
    ],
    [
      "[[0,0,2,2]]",
      [
        [0, 0, 2, 2],
        [5, 5, 6, 6],
      ],
      0.5,
    ],
    ["[[0,0,2,2],[9,9,10,10],[7,7,8,8],[5,5,6,6]]", [0, 0, 2, 2], 0.25],
    ["[2, 2, 0, 0]", [0, 0, 2, 2], 0],
    ["nowhere", [0, 0, 2, 2], 0],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("box-iou", completion, { answer })).toBe(expected);
  });

  test("xywh and threshold", async () => {
    const spec = { type: "box-iou", format: "xywh", threshold: 0.5 };
    expect(await reward(spec, "[0, 0, 2, 3]", { answer: [0, 0, 2, 2] })).toBe(1);
    expect(await reward(spec, "[0, 0, 2, 5]", { answer: [0, 0, 2, 2] })).toBe(0);
  });

  test("a right box without area is refused", () => {
    expect(check("box-iou", { answer: [1, 1, 1, 5] })).toThrow(/with an area/);
  });
});

describe("span-iou", () => {
  test("unions of spans, so that covering a part twice gains nothing", () => {
    expect(spanIou([[0, 10]], [[5, 15]])).toBeCloseTo(1 / 3, 12);
    expect(
      spanIou(
        [
          [0, 1],
          [0, 1],
          [0, 1],
        ],
        [[0, 2]],
      ),
    ).toBe(0.5);
    expect(
      spanIou(
        [[0, 1]],
        [
          [0, 1],
          [2, 3],
        ],
      ),
    ).toBe(0.5);
  });

  test.each([
    ["From 2.5 to 7.5 seconds", [2.5, 7.5], 1],
    ["<answer>2-4</answer>", [2, 4], 1],
    ["[[2, 4]]", [2, 4], 1],
    ["the answer is 0 to 100", [0, 10], 0.1],
    ["at 5", [2, 4], 0],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("span-iou", completion, { answer })).toBeCloseTo(expected, 12);
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

describe("combinators", () => {
  const two = { type: "sum", parts: [{ verifier: "numeric" }, { verifier: { type: "length", max: 3 }, weight: 0.5 }] };

  test("a weighted sum, with every part's verdict in its detail", async () => {
    const verdict = await judge(two, "7", { answer: 7 });
    expect(verdict).toMatchObject({ reward: 1.5, detail: { numeric: { reward: 1 }, length: { reward: 1 } } });
  });

  test("an undecided part makes the sum undecided", async () => {
    expect(await judge(two, "7", {})).toMatchObject({ reward: null, reason: "numeric: gold" });
  });

  test("a gate asks the second verifier only where the first is satisfied", async () => {
    const asked: string[] = [];
    const second = createVerifier(({ completion }: Sample) => {
      asked.push(completion);
      return 0.7;
    });
    const gate = createVerifier({ type: "gate", gate: "numeric", verifier: second, otherwise: -0.1 } as VerifierSpec);
    expect((await gate.verify(sample("7", { answer: 7 }), never)).reward).toBe(0.7);
    expect(await gate.verify(sample("8", { answer: 7 }), never)).toMatchObject({ reward: -0.1, reason: "gate" });
    expect(await gate.verify(sample("8", {}), never)).toMatchObject({ reward: null, reason: "gate: gold" });
    expect(asked).toEqual(["7"]);
  });

  test("rows are checked by every part", () => {
    expect(check(two, { answer: "none" })).toThrow(/numeric/);
  });

  test("two parts of one name need names of their own", () => {
    const twice = { type: "sum", parts: [{ verifier: "numeric" }, { verifier: "numeric" }] };
    expect(() => createVerifier(twice)).toThrow(/own name/);
  });
});

describe("a function of the user's", () => {
  test.each([
    [() => true, { reward: 1 }],
    [() => 0.25, { reward: 0.25 }],
    [() => null, { reward: null, reason: "undecided" }],
    [async () => ({ reward: 2, detail: { why: "so" } }), { reward: 2, detail: { why: "so" } }],
    [() => Number.NaN, { reward: null, reason: "bad-verdict" }],
    [
      () => {
        throw new Error("oh");
      },
      { reward: null, reason: "error" },
    ],
  ])("returns what it returns, or null: case %#", async (judgeIt, expected) => {
    expect(await createVerifier(judgeIt).verify(sample("x"), never)).toMatchObject(expected);
  });

  test("abort rejects with the reason while it is running", async () => {
    const controller = new AbortController();
    const verdict = createVerifier(() => new Promise<number>(() => {})).verify(sample("x"), controller.signal);
    controller.abort(new Error("enough"));
    await expect(verdict).rejects.toThrow("enough");
  });
});

describe("http", () => {
  async function serve<T>(listener: RequestListener, use: (url: string) => Promise<T>): Promise<T> {
    const server = createServer(listener);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test("sends the sample and returns the service's verdict", async () => {
    const bodies: string[] = [];
    const verdict = await serve(
      (request, response) => {
        let text = "";
        request.on("data", (chunk) => {
          text += chunk;
        });
        request.on("end", () => {
          bodies.push(text);
          response.end(JSON.stringify({ reward: 0.5, detail: { token: request.headers.authorization } }));
        });
      },
      (url) => {
        process.env.RLSD_TEST_TOKEN = "secret";
        return judge({ type: "http", url, headers: { authorization: "env:RLSD_TEST_TOKEN" } }, "x", { big: 2n ** 60n });
      },
    );
    expect(verdict).toEqual({ reward: 0.5, detail: { token: "secret" } });
    expect(JSON.parse(bodies[0]!)).toMatchObject({ completion: "x", row: { big: "1152921504606846976" } });
  });

  test("tries again after a failure and gives up with null, never 0", async () => {
    let calls = 0;
    const failing: RequestListener = (_, response) => {
      calls++;
      response.writeHead(calls < 3 ? 503 : 200).end(calls < 3 ? "" : '{"reward": 1}');
    };
    await serve(failing, async (url) => {
      expect(await reward({ type: "http", url, backoffMs: 1 }, "x")).toBe(1);
      calls = 0;
      expect(await judge({ type: "http", url, backoffMs: 1, retries: 1 }, "x")).toMatchObject({
        reward: null,
        reason: "http",
      });
      expect(calls).toBe(2);
    });
  });

  test("does not repeat what can only fail again", async () => {
    let calls = 0;
    const refuse: RequestListener = (_, response) => {
      calls++;
      response.writeHead(400).end("no");
    };
    await serve(refuse, async (url) => {
      expect(await judge({ type: "http", url, backoffMs: 1 }, "x")).toMatchObject({
        reward: null,
        detail: { status: 400 },
      });
    });
    expect(calls).toBe(1);
  });

  test("a service that does not answer, or answers nonsense, is null", async () => {
    await serve(
      () => {},
      async (url) => {
        const spec = { type: "http", url, timeoutMs: 30, retries: 0 };
        expect(await judge(spec, "x")).toMatchObject({ reward: null, reason: "timeout" });
      },
    );
    await serve(
      (_, response) => void response.end("<html>"),
      async (url) =>
        expect(await judge({ type: "http", url }, "x")).toMatchObject({ reward: null, reason: "bad-verdict" }),
    );
    // An answer without an end is left off, in time and in memory.
    let sent = 0;
    await serve(
      (_, response) => {
        const block = Buffer.alloc(1 << 16, " ");
        const more = () => {
          while (!response.destroyed && response.write(block)) sent += block.length;
        };
        response.on("drain", more);
        more();
      },
      async (url) =>
        expect(await judge({ type: "http", url }, "x")).toMatchObject({
          reward: null,
          detail: { message: "The answer is longer than 1048576 bytes" },
        }),
    );
    expect(sent).toBeLessThan(64 << 20);
    const closed = { type: "http", url: "http://127.0.0.1:1/", retries: 0 };
    expect(await judge(closed, "x")).toMatchObject({ reward: null, reason: "http" });
  });
});

describe("making a verifier", () => {
  test("an unknown name, option or value is an error that suggests the right one", () => {
    expect(() => createVerifier("numerc")).toThrow(/There is no verifier "numerc"\. Did you mean "numeric"\?/);
    expect(() => createVerifier({ type: "numeric", tolerence: 1 })).toThrow(/no option "tolerence"/);
    expect(() => createVerifier({ type: "text", deadline: 5 })).toThrow(/Did you mean "deadlineMs"\?/);
    expect(() => createVerifier({ type: "text", metric: "bleu" })).toThrow(
      /one of "exact", "wer", "cer".*received "bleu"/,
    );
    expect(() => createVerifier({ type: "length", max: 0 })).toThrow(/integer from 1/);
    expect(() => createVerifier({ type: "length" })).toThrow(/received nothing/);
    expect(() => createVerifier(3 as unknown as string)).toThrow(/Expected a verifier's name/);
    expect(() => createVerifier({ type: "http", url: "ftp://x" })).toThrow(/http or https address/);
  });

  test("every listed verifier has a summary and a known name", () => {
    const names = listVerifiers().map(({ type }) => type);
    expect(names).toEqual(expect.arrayContaining(["choice", "numeric", "sum", "gate", "module", "http"]));
    expect(new Set(names).size).toBe(names.length);
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
