import { createVerifier } from "../../lib/verifiers/registry.js";

const add = (a: unknown, b: unknown) => ({ name: "add", arguments: { a, b } });
const written = (...calls: unknown[]) =>
  calls.map((call) => `<tool_call>${JSON.stringify(call)}</tool_call>`).join("\n");

async function judged(completion: string, answer: unknown, o: object = {}) {
  const verifier = createVerifier({ type: "calls", ...o });
  const verdict = await verifier.verify({ id: "0", prompt: "", completion, finish: "stop", row: { answer } });
  return verdict.reward;
}

describe("calls", () => {
  test.each<[string, string, unknown, number, number]>([
    ["the right one", written(add(1, 2)), [add(1, 2)], 1, 1],
    ["JSON of the right one", written(add(1, 2)), JSON.stringify([add(1, 2)]), 1, 1],
    [
      "as OpenAI writes it",
      written(add(1, 2)),
      [{ type: "function", function: { name: "add", arguments: '{"a": 1, "b": 2}' } }],
      1,
      1,
    ],
    ["numbers alike", written(add(1.0, 2)), [add(1, 2.0)], 1, 1],
    ["another argument", written(add(1, 3)), [add(1, 2)], 0, 0.75],
    ["a text for a number", written(add("1", 2)), [add(1, 2)], 0, 0.75],
    ["an argument too many", written({ name: "add", arguments: { a: 1, b: 2, c: 3 } }), [add(1, 2)], 0, 5 / 6],
    ["another name", written({ ...add(1, 2), name: "sub" }), [add(1, 2)], 0, 0],
    ["both, in another order", written(add(3, 4), add(1, 2)), [add(1, 2), add(3, 4)], 1, 1],
    ["one of two", written(add(1, 2)), [add(1, 2), add(3, 4)], 0, 0.5],
    ["the right one twice", written(add(1, 2), add(1, 2)), [add(1, 2)], 0, 0.5],
    ["two and one that cannot be read", `${written(add(1, 2))}<tool_call>add</tool_call>`, [add(1, 2)], 0, 0.5],
    ["nested arguments", written(add({ x: [1, { y: 2 }] }, 2)), [add({ x: [1, { y: 2 }] }, 2)], 1, 1],
    ["none where one is right", "It is 3.", [add(1, 2)], 0, 0],
    ["none where none is right", "It is 3.", [], 1, 1],
    ["one where none is right", written(add(1, 2)), [], 0, 0],
    ["without arguments", written({ name: "now" }), [{ name: "now", arguments: {} }], 1, 1],
    ["only in thought", `<think>${written(add(1, 2))}</think>3`, [add(1, 2)], 0, 0],
    ["JSON alone", JSON.stringify({ name: "add", parameters: { a: 1, b: 2 } }), [add(1, 2)], 1, 1],
    ["a hundred and one", written(...Array.from({ length: 101 }, () => add(1, 2))), [add(1, 2)], 0, 0],
    [
      "a name of the prototype",
      written({ name: "add", arguments: { a: 1, constructor: 2 } }),
      [{ name: "add", arguments: { a: 1 } }],
      0,
      0.75,
    ],
  ])("%s", async (_, completion, answer, exact, graded) => {
    expect(await judged(completion, answer)).toBe(exact);
    expect(await judged(completion, answer, { graded: true })).toBeCloseTo(graded, 12);
  });

  test.each([[undefined], ["add(1, 2)"], [{ name: "add" }], [[{ arguments: {} }]], [[3]], [[null]], ["[3"]])(
    "a row whose answer is %j is refused before anything is drawn",
    (answer) => {
      const verifier = createVerifier("calls");
      expect(() => verifier.check!({ answer })).toThrow(/needs field "answer" to be a list of at most 100 calls/);
    },
  );
});

test("calls behind special tokens are read, which a completion leaves out", async () => {
  const verifier = createVerifier({ type: "calls" });
  const rest = { id: "0", finish: "stop", row: { answer: [add(1, 2)] } } as const;
  const completion = `Let me see.${JSON.stringify([add(1, 2)])}`;
  const raw = `Let me see.[TOOL_CALLS]${JSON.stringify([add(1, 2)])}`;
  const reward = async (sample: { readonly prompt: string; readonly raw?: string }) =>
    (await verifier.verify({ ...rest, completion, ...sample })).reward;
  expect(await reward({ prompt: "" })).toBe(0);
  expect(await reward({ prompt: "", raw })).toBe(1);
  // A thought that the prompt opened is none of the calls.
  expect(await reward({ prompt: "<think>", raw })).toBe(0);
  expect(await reward({ prompt: "<think>", raw: `so</think>${raw}` })).toBe(1);
});
