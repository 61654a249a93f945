import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createTokenizer } from "../lib/index.js";
import { patternLimit } from "../lib/policy/pattern-limit.js";

const CLUMSY = "(?:a+)+$";
const text = `${"a".repeat(60)}b`;

const tokenizer = (parts: object) =>
  createTokenizer(
    JSON.stringify({
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      model: { type: "WordLevel", vocab: { [text]: 0, a: 1, b: 2 }, unk_token: "b" },
      ...parts,
    }),
  );

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const replace = (Regex: string) => ({ type: "Replace", pattern: { Regex }, content: "a" });

test.each([
  ["a pre-tokenizer", { pre_tokenizer: { type: "Sequence", pretokenizers: [split("\\p{N}"), split(CLUMSY)] } }, 61],
  ["a normalizer", { normalizer: replace(CLUMSY) }, 61],
  ["a decoder", { decoder: replace(CLUMSY) }, 1],
])(
  "a pattern of %s that would match for ever is named in an error",
  (_, parts, count) => {
    const one = tokenizer(parts);
    const use = "decoder" in parts ? () => one.decode([0]) : () => one.encode(text);
    const message = new RegExp(
      `^tokenizer.json: its patterns took longer than 5 s on an input of length ${count}: .* but found "\\(\\?:a\\+\\)\\+\\$"`,
    );
    expect(use).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_TOKENIZER", message: expect.stringMatching(message) }),
    );
    // The next one is not held by it.
    expect([...tokenizer(parts).encode("a")]).toEqual([1]);
  },
  30_000,
);

test("patterns that try nothing twice at one place run without a limit", () => {
  const none = patternLimit([], "tokenizer.json");
  const example = JSON.parse(readFileSync(join(__dirname, "../assets/clock/tokenizer.json"), "utf8")).pre_tokenizer;
  expect(patternLimit([example], "tokenizer.json")).toBe(none);
  const plain = ["\\w+|[^\\w\\s]", " ?\\p{L}+| ?[^\\s\\]\\p{L}]*|\\u{1F600}|\\x41", ".", "ab?"];
  for (const pattern of plain) expect(patternLimit([split(pattern)], "tokenizer.json")).toBe(none);
  const others = [
    CLUMSY,
    "a+b",
    "(a|a)b",
    "\\s+$",
    "a??b",
    "a{2}",
    "a+?",
    "a?b?c",
    "(",
    "a|",
    "",
    "[a",
    "\\k<a>",
    "a?|".repeat(60),
  ];
  for (const pattern of others) expect(patternLimit([split(pattern)], "tokenizer.json")).not.toBe(none);
});

test("published patterns run without a limit, however they are written", () => {
  const none = patternLimit([], "tokenizer.json");
  const llama =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const parts = [replace(" {2,}"), { type: "Sequence", pretokenizers: [split("\\p{N}{1,3}"), split(llama)] }];
  expect(patternLimit(parts, "tokenizer.json")).toBe(none);
  const possessive = llama.replace("\\p{L}\\p{N}]?\\p{L}+", "\\p{L}\\p{N}]?+\\p{L}++");
  expect(patternLimit([split(possessive)], "tokenizer.json")).toBe(none);
  expect(patternLimit([split(`${llama}|x`)], "tokenizer.json")).not.toBe(none);
});
