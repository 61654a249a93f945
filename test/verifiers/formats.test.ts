import { createVerifier, type VerifierSpec } from "../../lib/verifiers/registry.js";
import type { Verdict, Verifier } from "../../lib/verifiers/verifier.js";
import { never, sample } from "./support.js";

const made = new Map<string, Verifier>();

function verifier(spec: VerifierSpec): Verifier {
  const key = JSON.stringify(spec);
  const known = made.get(key) ?? createVerifier(typeof spec === "string" ? spec : { ...spec });
  made.set(key, known);
  return known;
}

const judge = (spec: VerifierSpec, completion: string, row: Record<string, unknown> = {}): Promise<Verdict> =>
  verifier(spec).verify(sample(completion, row), never);
const reward = async (...call: Parameters<typeof judge>) => (await judge(...call)).reward;

afterAll(() => Promise.all([...made.values()].map((one) => one.dispose?.())));

describe("schema", () => {
  const person = {
    type: "object",
    properties: { name: { type: "string" }, age: { type: "integer", minimum: 0 } },
    required: ["name", "age"],
    additionalProperties: false,
  };
  const spec = { type: "schema", schema: person, workers: 1 };

  test.each([
    ["the whole answer", '{"name": "Ada", "age": 36}', 1],
    ["a fenced block", 'Here it is:\n```json\n{"name": "Ada", "age": 36}\n```\nDone.', 1],
    ["prose around it", 'The result {not this} is {"name": "Ada {}", "age": 36}, as asked.', 1],
    ["after a thought", '<think>{"name": 1}</think>{"name": "Ada", "age": 36}', 1],
    ["an earlier attempt that is right", '{"name": "Ada", "age": 36} or rather {"name": "Ada"}', 0],
    ["a missing member", '{"name": "Ada"}', 0],
    ["a further member", '{"name": "Ada", "age": 36, "x": 1}', 0],
    ["single quotes", "{'name': 'Ada', 'age': 36}", 0],
    ["an unfinished thought", '<think>{"name": "Ada", "age": 36}', 0],
    ["nothing", "no JSON here", 0],
    ["an apostrophe in the prose", 'Ada\'s "record\nis {"name": "Ada", "age": 36}', 1],
  ])("%s", async (_, completion, expected) => {
    expect(await reward(spec, completion)).toBe(expected);
  });

  test("only the tag counts when one is asked for", async () => {
    const tagged = { ...spec, tag: "answer" };
    expect(await reward(tagged, '<answer>{"name": "Ada", "age": 36}</answer>')).toBe(1);
    expect(await reward(tagged, '{"name": "Ada", "age": 36}')).toBe(0);
  });

  test("the detail names the first violation", async () => {
    const { detail } = await judge(spec, '{"name": "Ada", "age": -1}');
    expect(detail).toMatchObject({ why: "/age must be >= 0", from: "whole" });
  });

  test("each draft has its own keywords", async () => {
    const tuple = (draft: string, keyword: string) => ({
      $schema: draft,
      type: "array",
      [keyword]: [{ type: "string" }],
    });
    const row = { type: "schema", workers: 1 };
    const judged = (schema: unknown) => reward(row, "[1]", { schema });
    expect(await judged(tuple("https://json-schema.org/draft/2020-12/schema", "prefixItems"))).toBe(0);
    expect(await judged(tuple("https://json-schema.org/draft/2019-09/schema", "items"))).toBe(0);
    expect(await judged(tuple("http://json-schema.org/draft-07/schema#", "items"))).toBe(0);
    expect(await judged(tuple("http://json-schema.org/draft-07/schema#", "prefixItems"))).toBe(1);
    expect(await reward(row, '"no date"', { schema: '{"type": "string", "format": "date"}' })).toBe(0);
  });

  test("two rows may carry the same $id", async () => {
    const row = { type: "schema", workers: 1 };
    expect(await reward(row, "1", { schema: { $id: "urn:test:a", type: "integer" } })).toBe(1);
    expect(await reward(row, "1", { schema: { $id: "urn:test:a", type: "string" } })).toBe(0);
  });

  test("a schema that is none is refused when the row is read, and undecided when it is judged", async () => {
    const check = (schema: unknown) => () => verifier("schema").check?.({ schema });
    expect(check({ type: "objekt" })).toThrow(/field "schema" to be a valid JSON Schema/);
    expect(check({ $ref: "https://example.org/other.json" })).toThrow(/reference/);
    expect(check("{")).toThrow(/valid JSON Schema/);
    expect(check(undefined)).toThrow(/there is none/);
    expect(check({ type: "object" })).not.toThrow();
    expect(await judge("schema", "{}", { schema: { type: "objekt" } })).toMatchObject({ reward: null, reason: "gold" });
  });

  test("a pattern that backtracks for ever elsewhere takes no time", async () => {
    const schema = { type: "string", pattern: "^(a+)+$" };
    const started = performance.now();
    expect(await reward("schema", JSON.stringify(`${"a".repeat(40_000)}!`), { schema })).toBe(0);
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  test("JSON text made to be slow takes no time", async () => {
    const started = performance.now();
    for (const text of [
      "[".repeat(50_000),
      '{"a":'.repeat(20_000),
      '"'.repeat(50_000),
      "{}".repeat(25_000),
      "}{".repeat(25_000),
    ]) {
      expect((await judge(spec, `x ${text}`)).reward).not.toBe(1);
    }
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

describe("regex", () => {
  test.each([
    [{ pattern: "\\d+" }, "123", 1],
    [{ pattern: "\\d+" }, "a 123", 0],
    [{ pattern: "\\d+", match: "search" }, "a 123", 1],
    [{ pattern: "<think>.*</think>\\s*<answer>.*</answer>" }, "<think>\na\n</think>\n<answer>b</answer>", 1],
    [{ pattern: "yes", flags: "i" }, "YES", 1],
    [{ pattern: "b", whole: false }, "<think>a</think> b", 1],
  ])("%j on %j is %d", async (options, completion, expected) => {
    expect(await reward({ type: "regex", workers: 1, ...options }, completion)).toBe(expected);
  });

  test("a captured group is compared with a field", async () => {
    const spec = { type: "regex", pattern: "x=(\\w+)", match: "search", capture: "answer", workers: 1 };
    expect(await reward(spec, "so x=abc", { answer: "abc" })).toBe(1);
    expect(await reward(spec, "so x=abd", { answer: "abc" })).toBe(0);
    expect(() => verifier(spec).check?.({})).toThrow(/"answer" to be a text/);
  });

  test("catastrophic patterns run in linear time", async () => {
    const started = performance.now();
    for (const pattern of ["(a+)+b", "(a|aa)+b", "(.*)*x", "([a-zA-Z]+)*\\d"]) {
      expect(await reward({ type: "regex", pattern, workers: 1 }, "a".repeat(30_000))).toBe(0);
    }
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  test("what cannot run in linear time is refused by name", () => {
    for (const pattern of ["(a)\\1", "(?=a)b", "(", "(?<!x)y"]) {
      expect(() => createVerifier({ type: "regex", pattern })).toThrow(/look-around|back-references/);
    }
    expect(() => createVerifier({ type: "regex", pattern: "a", flags: "y" })).toThrow(/flag "y"/);
  });
});

describe("tags", () => {
  const spec = { type: "tags", tags: ["think", "answer"] };
  test.each([
    ["the layout", "<think>a</think>\n<answer>b</answer>", 1],
    ["another order", "<answer>b</answer><think>a</think>", 0],
    ["a tag inside another", "<think>a<answer>b</answer></think>", 0],
    ["a tag twice", "<think>a</think><answer>b</answer><answer>c</answer>", 0],
    ["a tag not closed", "<think>a<answer>b</answer>", 0],
    ["text outside", "Well: <think>a</think><answer>b</answer>", 0],
    ["text behind", "<think>a</think><answer>b</answer> So there.", 0],
    ["an empty tag", "<think> </think><answer>b</answer>", 0],
    ["nothing", "", 0],
  ])("%s", async (_, completion, expected) => {
    expect(await reward(spec, completion)).toBe(expected);
  });

  test("text outside, empty tags and shares by option", async () => {
    expect(await reward({ ...spec, outside: true }, "Well: <think>a</think><answer>b</answer>")).toBe(1);
    expect(await reward({ ...spec, empty: true }, "<think></think><answer>b</answer>")).toBe(1);
    expect(await reward({ ...spec, partial: true }, "<think>a</think>")).toBe(0.5);
  });

  test("the reason says which tag", async () => {
    const { detail } = await judge(spec, "<think>a</think>");
    expect(detail).toEqual({ why: ["<answer>: missing"] });
  });

  test("names must be names, and different", () => {
    expect(() => createVerifier({ type: "tags", tags: ["a b"] })).toThrow(/different names/);
    expect(() => createVerifier({ type: "tags", tags: ["a", "a"] })).toThrow(/different names/);
  });
});

describe("xml", () => {
  test.each([
    ["a document", "<a><b x='1'/>t &amp; u</a>", 1],
    ["a fenced document", "Here:\n```xml\n<?xml version='1.0'?>\n<a/>\n```", 1],
    ["prose around it", "The answer is <a>1</a>.", 1],
    ["an element not closed", "<a><b></a>", 0],
    ["an attribute without quotes", "<a x=1/>", 0],
    ["an attribute twice", "<a x='1' x='2'/>", 0],
    ["two roots", "<a/><b/>", 0],
    ["an entity that nobody defined", "<a>&nbsp;</a>", 0],
    ["a prefix that nobody bound", "<p:a/>", 0],
    ["an ampersand", "<a>x & y</a>", 0],
    ["no markup", "nothing", 0],
  ])("%s", async (_, completion, expected) => {
    expect(await reward("xml", completion)).toBe(expected);
  });

  test("a root by name, and fragments", async () => {
    expect(await reward({ type: "xml", root: "a" }, "<a/>")).toBe(1);
    expect(await judge({ type: "xml", root: "a" }, "<b/>")).toMatchObject({ reward: 0, reason: "root" });
    expect(await reward({ type: "xml", fragment: true }, "<a/><b/>")).toBe(1);
  });

  test("entities that multiply are not expanded", async () => {
    const bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>';
    expect(await judge("xml", bomb)).toMatchObject({ reward: 0, reason: "not-well-formed" });
  });

  test("markup made to be slow takes no time", async () => {
    const started = performance.now();
    for (const text of ["<".repeat(50_000), "<a>".repeat(20_000), "<a ".repeat(20_000), "<!--".repeat(20_000)]) {
      expect(await reward("xml", `${text}>`)).toBe(0);
    }
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});
