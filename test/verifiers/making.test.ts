import { gated, switched, weightedSum } from "../../lib/verifiers/combine.js";
import { createVerifier, listVerifiers, type VerifierSpec } from "../../lib/verifiers/registry.js";
import type { Sample, Verifier } from "../../lib/verifiers/verifier.js";
import { check, judge, never, sample } from "./support.js";

describe("combinators", () => {
  const two = { type: "sum", parts: [{ verifier: "numeric" }, { verifier: { type: "length", max: 3 }, weight: 0.5 }] };

  test("a weighted sum, with every part's verdict in its detail", async () => {
    const verdict = await judge(two, "7", { answer: 7 });
    expect(verdict).toMatchObject({ reward: 1.5, detail: { numeric: { reward: 1 }, length: { reward: 1 } } });
  });

  test.each([
    [[0.7, 0.2, 0.1], [1, 1, 1], 1],
    [[0.6, 0.3, 0.1], [1, 1, 1], 1],
    [[0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1], 1],
    [[0.1, 0.7], [1, 1], 0.8],
    [[1, -0.7, -0.3], [1, 1, 1], 0],
    // What is no rounding error stays.
    [[1], [1 / 3], 1 / 3],
    [[1, 1], [1, -1e-15], 1 - 1e-15],
    [[1e-200, 1e200], [1, 1], 1e200],
  ])("weights %j of rewards %j make %d, exactly", async (weights, rewards, expected) => {
    const parts = weights.map((weight, i) => ({ verifier: () => rewards[i]!, weight, name: `part ${i}` }));
    expect((await judge({ type: "sum", parts }, "x")).reward).toBe(expected);
  });

  const right = createVerifier(() => 1);
  test.each<[string, () => unknown, RegExp]>([
    ["parts", () => weightedSum(right as never), /an array of \{ name, verifier, weight \} for parts/],
    ["a name", () => weightedSum([{ verifier: right } as never]), /a text for parts\[0\]\.name but received nothing/],
    [
      "a verifier",
      () => weightedSum([{ name: "a", verifier: (() => 1) as never }]),
      /parts\[0\]\.verifier.*createVerifier/,
    ],
    [
      "a weight",
      () => weightedSum([{ name: "a", verifier: right, weight: Number.NaN }]),
      /parts\[0\]\.weight but received NaN/,
    ],
    ["a gate", () => gated("math" as never, right), /a verifier for gate but received "math"/],
    ["what is gated", () => gated(right, undefined as never), /a verifier for verifier but received nothing/],
    ["a threshold", () => gated(right, right, Number.NaN), /a finite number for threshold/],
  ])("the functions say what they want of %s", (_, call, message) => {
    expect(call).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_VERIFIER_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test.each<[VerifierSpec, string]>([
    [{ type: "text", maxLength: 10 }, '"maxLength" of the verifier "text" has no effect where "metric" is exact'],
    [{ type: "text", tag: "a", extract: true }, '"extract" of the verifier "text" has no effect beside "tag"'],
    [{ type: "schema", schema: {}, field: "s" }, '"field" of the verifier "schema" has no effect beside "schema"'],
    [{ type: "choice", tag: "a", lastLine: false }, '"lastLine" of the verifier "choice" has no effect beside "tag"'],
  ])("an option that another leaves without effect is refused: %j", (spec, message) => {
    expect(() => createVerifier(spec)).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_VERIFIER_OPTION", message: expect.stringContaining(message) }),
    );
  });

  test("sums and gates may be called without a signal, as their parts may", async () => {
    const spoken = { verify: async (_: Sample, signal: AbortSignal) => ({ reward: Number(signal.aborted) }) };
    const sum = weightedSum([
      { name: "right", verifier: right, weight: 0.5 },
      { name: "spoken", verifier: spoken },
    ]);
    expect((await sum.verify(sample("x", {}))).reward).toBe(0.5);
    expect((await gated(right, spoken).verify(sample("x", {}))).reward).toBe(0);
    await expect(sum.verify(sample("x", {}), {} as never)).rejects.toThrow(/an AbortSignal for signal/);
  });

  test("an undecided part makes the sum undecided", async () => {
    expect(await judge(two, "7", {})).toMatchObject({ reward: null, reason: "numeric: gold" });
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, "1", undefined])(
    "a part of the caller's own that gives %p has not judged, and opens no gate",
    async (reward) => {
      const own = { verify: async () => ({ reward }) } as unknown as Verifier;
      const said = expect.stringContaining(`"reward" but the verifier returned`);
      const bad = { reward: null, reason: "bad-verdict", detail: { message: said } };
      const sum = createVerifier({ type: "sum", parts: [{ verifier: own, name: "own" }, { verifier: "numeric" }] });
      expect(await sum.verify(sample("7", { answer: 7 }))).toMatchObject({
        reward: null,
        reason: "own: bad-verdict",
        detail: { own: bad, numeric: { reward: 1 } },
      });
      const asked = jest.fn(() => 1);
      const gate = createVerifier({ type: "gate", gate: own, verifier: asked });
      expect(await gate.verify(sample("7"))).toMatchObject({ reward: null, reason: "gate: bad-verdict" });
      expect(asked).not.toHaveBeenCalled();
    },
  );

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

  const byKind = { type: "switch", field: "kind", cases: { sum: "numeric", 2: { type: "text" } } };

  test("a switch asks the verifier that a row names, and no other", async () => {
    expect(await judge(byKind, "so 7", { kind: "sum", answer: 7 })).toEqual({
      reward: 1,
      detail: { sum: expect.objectContaining({ reward: 1 }) },
    });
    expect(await judge(byKind, "so 7", { kind: 2, answer: "7" })).toMatchObject({
      reward: 0,
      detail: { 2: { reward: 0 } },
    });
    const without = { reward: null, reason: "no-case", detail: { kind: "other" } };
    expect(await judge(byKind, "7", { kind: "other", answer: 7 })).toEqual(without);
    expect(await judge(byKind, "7", { answer: 7 })).toMatchObject({ reward: null, reason: "no-case" });
    const rest = { ...byKind, otherwise: "numeric" };
    expect(await judge(rest, "7", { answer: 7 })).toMatchObject({ reward: 1, detail: { otherwise: { reward: 1 } } });
    expect(await judge(byKind, "x", { kind: "toString" })).toMatchObject({ reward: null, reason: "no-case" });
  });

  test("rows are checked by the verifier that they name, and have to name one", () => {
    expect(check(byKind, { kind: "sum", answer: "none" })).toThrow(/numeric/);
    expect(check(byKind, { kind: "2", answer: "none" })).not.toThrow();
    expect(check(byKind, { kind: "other", answer: 7 })).toThrow(/switch.*"kind".*one of 2, sum.*"other"/s);
    expect(check({ ...byKind, otherwise: "numeric" }, { answer: "none" })).toThrow(/numeric/);
    const letters = createVerifier({ type: "switch", field: "kind", cases: { mc: { type: "choice", first: 1 } } });
    expect(letters.answerOf?.({ kind: "mc", answer: 2, choices: ["x", "y"] })).toBe("B. y");
  });

  test.each<[string, () => unknown, RegExp]>([
    ["a column", () => createVerifier({ type: "switch", cases: { a: "math" } }), /"field" of the verifier "switch"/],
    [
      "cases",
      () => createVerifier({ type: "switch", field: "k", cases: {} }),
      /\{ value: verifier \} with at least one/,
    ],
    ["a case", () => createVerifier({ type: "switch", field: "k", cases: { a: "maths" } }), /Did you mean "math"/],
    ["cases in code", () => switched("k", { a: "math" as never }), /a verifier for cases\.a but received "math"/],
    ["one case in code", () => switched("k", {}), /at least one verifier for cases/],
    ["a column in code", () => switched("", { a: right }), /the name of a column for field/],
  ])("a switch says what it wants of %s", (_, call, message) => expect(call).toThrow(message));

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
    [() => ({ reward: 1, detail: { count: 1n } }), { reward: null, reason: "bad-verdict" }],
    [
      () => Number.NaN,
      { reward: null, reason: "bad-verdict", detail: { message: expect.stringMatching(/returned NaN/) } },
    ],
    [
      () => ({ reward: -Infinity }),
      { reward: null, reason: "bad-verdict", detail: { message: expect.stringMatching(/as "reward".* -Infinity\.$/) } },
    ],
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

describe("making a verifier", () => {
  test.each([["boolean"], [{ type: "sum", parts: [{ verifier: "boolean" }] }], [() => 1]])(
    "a call needs no signal, and takes nothing else for one: case %#",
    async (spec) => {
      const verifier = createVerifier(spec);
      expect((await verifier.verify(sample("yes", { answer: true }))).reward).toBe(1);
      const wrong = verifier.verify(sample("yes", { answer: true }), {} as AbortSignal);
      await expect(wrong).rejects.toThrow("Expected an AbortSignal for signal but received a value of type object");
    },
  );

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
