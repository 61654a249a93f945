import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../lib/policy/tokenizer.js";

const folder = join(__dirname, "fixtures/models/tokenizer-bpe");

/** All of GPT-2's characters for bytes, in the order of the bytes. */
const BYTES = Array.from({ length: 256 }, (_, byte) => byte).reduce<{ list: string[]; next: number }>(
  ({ list, next }, byte) => {
    const shown = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return { list: [...list, String.fromCharCode(shown ? byte : next)], next: shown ? next : next + 1 };
  },
  { list: [], next: 0x100 },
).list;

interface Made {
  readonly pre_tokenizer?: unknown;
  readonly decoder?: unknown;
  readonly merges?: readonly [string, string][];
  readonly model?: Readonly<Record<string, unknown>>;
  readonly added?: readonly string[];
}

/** A byte-level BPE whose first ids are the bytes. */
function made({ pre_tokenizer = null, decoder = { type: "ByteLevel" }, merges = [], model, added = [] }: Made): string {
  const tokens = [...BYTES, ...merges.map((pair) => pair.join(""))];
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const own = model ?? { type: "BPE", vocab, merges };
  const first = Object.keys(own.vocab as object).length;
  const added_tokens = added.map((content, i) => ({ id: first + i, content, special: true, normalized: false }));
  return JSON.stringify({ normalizer: null, pre_tokenizer, model: own, decoder, post_processor: null, added_tokens });
}

const bytesOf = (text: string): number[] => [...Buffer.from(text)];
const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, use_regex: true };

describe("a pre-tokenizer reads Unicode as the library that makes vocabularies", () => {
  // The ids are those of the Python library `tokenizers` 0.23.3 for the same files.
  test("a digit is any of \\p{N}, as in SmolLM 2 and Granite", () => {
    const digits = { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, BYTE_LEVEL] };
    const one = createTokenizer(made({ pre_tokenizer: digits, merges: [["Ġ", "Â"]] }));
    expect([...one.encode(" ½")]).toEqual(bytesOf(" ½"));
    expect([...one.encode(" £")]).toEqual([256, 0xa3]);
  });

  test("white space is White_Space: U+0085 is, U+FEFF is not", () => {
    const one = createTokenizer(
      made({
        pre_tokenizer: BYTE_LEVEL,
        merges: [
          ["a", "Â"],
          ["Ċ", "ï"],
        ],
      }),
    );
    expect([...one.encode("a\u0085")]).toEqual(bytesOf("a\u0085"));
    expect([...one.encode("\n\ufeff")]).toEqual(bytesOf("\n\ufeff"));
  });

  test("a space is put before a text that has none, and before no other", () => {
    const one = createTokenizer(made({ pre_tokenizer: { ...BYTE_LEVEL, add_prefix_space: true } }));
    expect([...one.encode("a b\nc")]).toEqual(bytesOf(" a b\nc"));
    expect([...one.encode(" a")]).toEqual(bytesOf(" a"));
  });

  test("a Metaspace takes words apart, unless it says that it does not", () => {
    const vocab = { a: 0, "▁": 1, "▁a": 2, "a▁": 3, "▁▁": 4 };
    const merges = [
      ["▁", "▁"],
      ["a", "▁"],
      ["▁", "a"],
    ];
    const ids = (more: object) => {
      const pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", ...more };
      return [
        ...createTokenizer(made({ pre_tokenizer, decoder: null, model: { type: "BPE", vocab, merges } })).encode(
          "a  a",
        ),
      ];
    };
    expect(ids({})).toEqual([2, 1, 2]);
    expect(ids({ split: true })).toEqual([2, 1, 2]);
    expect(ids({ split: false })).toEqual([2, 4, 0]);
  });

  test("whole texts are cut before spaces only where no token reaches over", () => {
    const vocab = Object.fromEntries(
      ["▁", "a", ">", "<", "▁a", "▁▁", "▁<", ">▁<", "aa"].map((token, id) => [token, id]),
    );
    const merges = [
      ["▁", "▁"],
      ["▁", "<"],
      [">", "▁<"],
      ["▁", "a"],
      ["a", "a"],
    ];
    const json = JSON.parse(made({ decoder: null, model: { type: "BPE", vocab, merges } }));
    json.normalizer = { type: "Replace", pattern: { String: " " }, content: "▁" };
    const one = createTokenizer(JSON.stringify(json));
    for (let i = 0; i < 2; i++) {
      expect([...one.encode("a > <a aa")]).toEqual([1, 0, 7, 1, 4, 1]);
      expect([...one.encode(">  < a  a")]).toEqual([2, 5, 3, 4, 5, 1]);
    }
  });

  test("a word has the same ids however often, however long, and beside whatever", () => {
    const one = createTokenizer(made({ pre_tokenizer: BYTE_LEVEL, merges: [["a", "a"]], added: ["<a>"] }));
    const long = "a".repeat(99);
    for (let i = 0; i < 3; i++) {
      expect([...one.encode("aab aab<a>aab")]).toEqual([256, 0x62, 0x20, 256, 0x62, 257, 256, 0x62]);
      expect([...one.encode(long)]).toEqual([...Array(49).fill(256), 0x61]);
      expect([...one.encode("\ud800a\ufffd")]).toEqual(bytesOf("\ufffda\ufffd"));
    }
    const words = Array.from(
      { length: 70_000 },
      (_, i) => ` ${i.toString(26).replaceAll(/\d/g, (c) => "qrstuvwxyz"[+c]!)}`,
    );
    for (const text of [words.join(""), words.toReversed().join("")]) {
      expect(one.decode(one.encode(text))).toBe(text);
    }
  });

  const WORDS = { "<s>": 0, café: 1, qué: 2, "¿": 3, "[UNK]": 4 };
  const words = (type: string, unk_token?: string) =>
    createTokenizer(
      made({ pre_tokenizer: { type }, decoder: null, model: { type: "WordLevel", vocab: WORDS, unk_token } }),
    );

  test("a word may have any letters, and an unknown one has the model's token for it", () => {
    expect([...words("Whitespace", "[UNK]").encode("¿qué café té?")]).toEqual([3, 2, 1, 4, 4]);
    expect([...words("WhitespaceSplit", "[UNK]").encode("qué\u0085café qué\ufeffcafé")]).toEqual([2, 1, 4]);
  });

  test("an unknown word without such a token is an error, and not the first token", () => {
    const expected = expect.objectContaining({ code: "ERR_RLSD_TOKENIZER", message: expect.stringContaining('"té"') });
    expect(() => words("Whitespace").encode("café té")).toThrow(expected);
  });
});

describe("decoding", () => {
  const text = (one: Tokenizer, ids: readonly number[]) => one.pieces(ids).join("");

  test("spaces before punctuation stay, whatever the configuration says, as Llama 3's does", async () => {
    const json = readFileSync(join(folder, "tokenizer.json"), "utf8");
    const one = createTokenizer(json, JSON.stringify({ clean_up_tokenization_spaces: true }));
    const said = "wait , really ? it 's so .";
    const ids = [...one.encode(said)];
    expect(one.decode(ids)).toBe(said);
    expect(text(one, ids)).toBe(said);
  });

  test("bytes that form no character are shown when it is known that they do not", () => {
    const one = createTokenizer(made({}));
    const [half] = bytesOf("é");
    expect(one.pieces([half!, half!, half!, 0x61, half!])).toEqual(["", "\ufffd", "\ufffd", "\ufffda", "\ufffd"]);
    expect(one.pieces(bytesOf("\ufeff\ufffdé"))).toEqual(["", "", "\ufeff", "", "", "\ufffd", "", "é"]);
  });

  test("a token with a character that is no byte's is shown as it is", () => {
    const one = createTokenizer(made({ added: ["<｜end▁é｜>"] }));
    const ids = [...bytesOf("é"), 256, ...bytesOf("!")];
    expect(one.decode(ids)).toBe("é<｜end▁é｜>!");
    expect(text(one, ids)).toBe("é<｜end▁é｜>!");
    expect(one.decode(ids, { skipSpecialTokens: true })).toBe("é!");
  });

  const vocab = { "<s>": 0, "▁one": 1, "▁two": 2, "<0xC3>": 3, "<0xA9>": 4, "▁": 5 };
  const parts = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ];
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const fallback = (decoders: readonly unknown[]) =>
    createTokenizer(
      made({ decoder: { type: "Sequence", decoders }, model: { type: "BPE", vocab, merges: [] }, added: ["</s>"] }),
    );

  test("bytes of a fallback, and a space that is taken away at the front alone", () => {
    const ids = [1, 3, 4, 6, 2, 3];
    expect(fallback(parts).decode(ids)).toBe(" oneé</s> two\ufffd");
    const one = fallback([...parts, strip]);
    expect(one.decode(ids)).toBe("oneé</s> two\ufffd");
    expect(one.pieces(ids)).toEqual(["one", "", "é", "</s>", " two", "\ufffd"]);
    expect(one.decode([6, 5, 2], { skipSpecialTokens: true })).toBe(" two");
    const feed = one.stream({ skipSpecialTokens: true });
    expect([6, 5, 2, 1].map(feed)).toEqual(["", "", " two", " one"]);
  });

  test("a decoder that looks at neighbours gives pieces of the same text", () => {
    const one = fallback([{ type: "Metaspace", replacement: "▁", prepend_scheme: "always" }]);
    expect(one.pieces([1, 2, 6])).toEqual(["one", " two", "</s>"]);
    expect(one.decode([1, 2, 6], { skipSpecialTokens: true })).toBe("one two");
  });
});

test("files that hold the same are one tokenizer", async () => {
  const copy = (config: string) => {
    const directory = mkdtempSync(join(tmpdir(), "rlsd-tok-"));
    writeFileSync(join(directory, "tokenizer.json"), readFileSync(join(folder, "tokenizer.json")));
    writeFileSync(join(directory, "tokenizer_config.json"), config);
    return loadTokenizer(directory);
  };
  const [one, again, other] = [await copy("{}"), await copy("{}"), await copy('{"eos_token": "<|im_end|>"}')];
  expect(again).toBe(one);
  expect(other).not.toBe(one);
});
