import { createTokenizer } from "../lib/index.js";

type Json = Record<string, unknown>;

const BYTES = { type: "ByteLevel", add_prefix_space: false, use_regex: true };

/** A tokenizer of three letters and a special token. */
const whole = (): Json & { model: Json } => ({
  added_tokens: [{ id: 5, content: "<s>", special: true, normalized: false }],
  normalizer: null,
  pre_tokenizer: BYTES,
  post_processor: null,
  decoder: BYTES,
  model: {
    type: "BPE",
    vocab: { a: 0, b: 1, c: 2, ab: 3, abc: 4 },
    merges: [
      ["a", "b"],
      ["ab", "c"],
    ],
  },
});

const made = (change: (json: Json & { model: Json }) => void) => {
  const json = whole();
  change(json);
  return createTokenizer(JSON.stringify(json));
};

test("a name of the file that is none is refused", () => {
  expect(() => createTokenizer(JSON.stringify(whole()), "{}", 3 as never)).toThrow(
    "Expected a path for file but received 3",
  );
});

test("the file itself is read, with merges in their older form too", () => {
  expect([made(() => {}).size, ...made(() => {}).encode("<s>abcab")]).toEqual([6, 5, 4, 3]);
  const older = made(({ model }) => Object.assign(model, { merges: ["a b", "ab c"] }));
  expect([...older.encode("abc")]).toEqual([4]);
  const prefixed = made(({ model }) => {
    const vocab = { a: 0, "##b": 1, ab: 2 };
    Object.assign(model, { vocab, merges: [["a", "##b"]], continuing_subword_prefix: "##" });
  });
  expect(prefixed.idOf("ab")).toBe(2);
  const none = made((json) => Reflect.deleteProperty(json, "added_tokens"));
  expect(none.size).toBe(5);
});

test.each<[string, (json: Json & { model: Json }) => void, RegExp]>([
  // Nothing would count to these in a time that anybody waits.
  ["an id beyond number", ({ model }) => Object.assign(model.vocab as Json, { d: 2 ** 53 }), /model.vocab.*"d"/],
  ["an id of a billion", ({ model }) => Object.assign(model.vocab as Json, { d: 1e9 }), /0 to 16777215, for "d"/],
  ["an id below 0", ({ model }) => Object.assign(model.vocab as Json, { d: -1 }), /for "d" but found -1/],
  ["half an id", ({ model }) => Object.assign(model.vocab as Json, { d: 0.5 }), /for "d" but found 0.5/],
  ["no vocabulary", ({ model }) => Object.assign(model, { vocab: null }), /model.vocab but found null/],
  ["no model", (json) => Object.assign(json, { model: [] }), /expected an object for model/],
  [
    "an added token without an id",
    (json) => Object.assign(json, { added_tokens: [{ content: "x" }] }),
    /added_tokens.0/,
  ],
  [
    "an added id below 0",
    (json) => Object.assign(json, { added_tokens: [{ id: -1, content: "x" }] }),
    /added_tokens.0/,
  ],
  ["added tokens by name", (json) => Object.assign(json, { added_tokens: { x: 1 } }), /a list for added_tokens/],
  ["merges that are none", ({ model }) => Object.assign(model, { merges: "a b" }), /a list for model.merges/],
  [
    "a merge of three",
    ({ model }) => Object.assign(model, { merges: ["a b c"] }),
    /model.merges.0.: expected two tokens/,
  ],
  [
    "merges of two forms",
    ({ model }) => Object.assign(model, { merges: [["a", "b"], "ab c"] }),
    /model.merges.1.: exp/,
  ],
  ["a merge of a token that is lost", ({ model }) => Object.assign(model, { merges: [["a", "x"]] }), /"x" is no token/],
  ["a merge to one that is lost", ({ model }) => Object.assign(model, { merges: [["b", "c"]] }), /"bc" is no token/],
  [
    "words of no length", // Would be cut for ever.
    (json) => Object.assign(json, { pre_tokenizer: { type: "FixedLength", length: 0 } }),
    /pre_tokenizer.length: expected a whole number above 0/,
  ],
  [
    "a pattern of another kind", // Would be left out.
    (json) => Object.assign(json, { normalizer: { type: "Replace", pattern: { Glob: "x" }, content: "y" } }),
    /normalizer.pattern: expected/,
  ],
  [
    "a pattern inside a sequence",
    (json) => Object.assign(json, { pre_tokenizer: { type: "Sequence", pretokenizers: [BYTES, { type: "Split" }] } }),
    /pre_tokenizer.pretokenizers.1..pattern/,
  ],
  [
    "a sequence of nothing",
    (json) => Object.assign(json, { decoder: { type: "Sequence" } }),
    /decoder: expected a list/,
  ],
  ["a part that is a word", (json) => Object.assign(json, { decoder: "ByteLevel" }), /decoder: expected an object/],
  [
    "a frame that is none",
    (json) => Object.assign(json, { post_processor: { type: "TemplateProcessing", single: [1] } }),
    /this tokenizer is not supported/,
  ],
])("%s is an error of its file", (_, change, message) => {
  const expected = { code: "ERR_RLSD_TOKENIZER", message: expect.stringMatching(message) };
  expect(() => made(change)).toThrow(expect.objectContaining(expected));
});

test.each<[string, Json, RegExp]>([
  ["a score that is none", { vocab: [["a", null]] }, /model.vocab.0.: expected a token and its score/],
  ["no tokens", { vocab: [] }, /has 0 tokens/],
  ["an unknown token beyond them", { vocab: [["a", -1]], unk_id: 1 }, /model.unk_id: expected one of the 1 tokens/],
  ["a list of another kind", { type: "BPE", vocab: [["a", -1]], merges: [] }, /which is for a Unigram alone/],
])("of a Unigram %s", (_, model, message) => {
  const change = (json: Json) => Object.assign(json, { model: { type: "Unigram", ...model } });
  expect(() => made(change)).toThrow(expect.objectContaining({ message: expect.stringMatching(message) }));
});

test("what the library cannot do is an error of the package", () => {
  const sequence = `{"type":"Sequence","pretokenizers":[`;
  const deep = sequence.repeat(20_000) + JSON.stringify(BYTES) + "]}".repeat(20_000);
  const text = JSON.stringify({ ...whole(), pre_tokenizer: "HERE" }).replace(`"HERE"`, deep);
  const code = "ERR_RLSD_TOKENIZER";
  expect(() => createTokenizer(text)).toThrow(expect.objectContaining({ code }));
  const vocab = [["a", -1]];
  const scored = made((json) => Object.assign(json, { pre_tokenizer: null, model: { type: "Unigram", vocab } }));
  expect([...scored.encode("aa")]).toEqual([0, 0]);
  const message = expect.stringContaining("a text could not be encoded");
  expect(() => scored.encode("a".repeat(300_000))).toThrow(expect.objectContaining({ code, message }));
});

test("ids that are none have no text, and lists that are none are refused", () => {
  const one = made(() => {});
  const odd = ["length", "map", -1, 0.5, Number.NaN, 2 ** 40, undefined] as number[];
  expect([one.decode(odd), one.pieces(odd).join("")]).toEqual(["", ""]);
  for (const length of [Number.POSITIVE_INFINITY, Number.NaN, -1, 2 ** 53]) {
    for (const call of [() => one.decode({ length }), () => one.pieces({ length })]) {
      expect(call).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
    }
  }
});
