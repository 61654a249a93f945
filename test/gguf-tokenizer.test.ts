import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, exportModel, loadPolicy, type NewModelConfig } from "../lib/index.js";
import { type GgufFile, readGguf } from "./support/gguf.js";
import { tinyPolicy } from "./support/small-policy.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-gguf-text-"));
const bpe = join(__dirname, "fixtures/models/tokenizer-bpe");

interface TokenizerJson {
  model: Record<string, unknown>;
  [part: string]: unknown;
}

/** Files of a tokenizer of 362 tokens. */
const files = Object.fromEntries(
  ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map((name) => [
    name,
    readFileSync(join(bpe, name)),
  ]),
);

let count = 0;
async function saved(policy: EnginePolicy): Promise<GgufFile> {
  const file = join(folder, `saved-${count++}.gguf`);
  await policy.saveGguf(file);
  return readGguf(file);
}

/** A new model with that tokenizer. */
const made = (config: Partial<NewModelConfig>): Promise<EnginePolicy> =>
  tinyPolicy({ vocabSize: 370, endTokenIds: [2], ...config }, { files });

describe("the tokenizer's part", () => {
  test("has every id of the model, special tokens and the chat template", async () => {
    await using policy = await made({});
    const { metadata } = await saved(policy);
    const [tokens, types] = [metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")] as [
      string[],
      number[],
    ];
    expect([tokens.length, tokens[2], tokens[369]]).toEqual([370, "<|im_end|>", "[PAD369]"]);
    expect([types[2], types[200], types[369]]).toEqual([3, 1, 5]);
    const json = JSON.parse(files["tokenizer.json"]!.toString());
    expect((metadata.get("tokenizer.ggml.merges") as string[]).length).toBe(json.model.merges.length);
    expect(metadata.get("tokenizer.ggml.eos_token_id")).toBe(2);
    expect(metadata.get("tokenizer.chat_template")).toBe(files["chat_template.jinja"]!.toString());
  });

  /** What a changed tokenizer.json gives. */
  async function changed(
    change: (json: TokenizerJson) => void,
    config: object = { eos_token: "<|im_end|>" },
  ): Promise<GgufFile> {
    const json = JSON.parse(files["tokenizer.json"]!.toString());
    change(json);
    const own = { "tokenizer.json": JSON.stringify(json), "tokenizer_config.json": JSON.stringify(config) };
    await using policy = await createPolicy(
      { vocabSize: 370, hiddenSize: 16, intermediateSize: 16, numLayers: 1, numHeads: 2, maxLength: 32 },
      { files: own },
    );
    return await saved(policy);
  }

  const split = (Regex: string, behavior = "Isolated", invert = false) => ({
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex }, behavior, invert },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  });
  const llama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const tiktoken =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";

  test.each([
    ["llama-bpe", split(llama3), true],
    ["dbrx", split(llama3), false],
    ["dbrx", split(tiktoken, "Removed", true), false],
    ["qwen2", split(llama3.replace("{1,3}", "")), false],
    [
      "smollm",
      {
        type: "Sequence",
        pretokenizers: [
          { type: "Digits", individual_digits: true },
          { type: "ByteLevel", add_prefix_space: false },
        ],
      },
      false,
    ],
  ])("names how a text is cut by what does it: %s", async (name, step, ignoreMerges) => {
    const { metadata } = await changed((json) => {
      json.pre_tokenizer = step;
      json.model.ignore_merges = ignoreMerges;
    });
    expect(metadata.get("tokenizer.ggml.pre")).toBe(name);
  });

  test.each([
    [
      "a pre_tokenizer that llama.cpp does not have",
      (json: TokenizerJson) => {
        json.pre_tokenizer = split("[a-z]+|.");
      },
      /no name for the pre_tokenizer .*expected that of gpt-2, smollm/,
    ],
    [
      "a known one with ignore_merges of its own",
      (json: TokenizerJson) => {
        json.model.ignore_merges = true;
      },
      /with ignore_merges/,
    ],
    [
      "a normalizer",
      (json: TokenizerJson) => {
        json.normalizer = { type: "Lowercase" };
      },
      /normalizer .*Lowercase/,
    ],
    [
      "text around texts",
      (json: TokenizerJson) => {
        json.post_processor = {
          type: "TemplateProcessing",
          single: [
            { SpecialToken: { id: "<|im_start|>", type_id: 0 } },
            { SpecialToken: { id: "<|pad|>", type_id: 0 } },
            { Sequence: { id: "A", type_id: 0 } },
          ],
          pair: [],
          special_tokens: {
            "<|im_start|>": { id: "<|im_start|>", ids: [1], tokens: ["<|im_start|>"] },
            "<|pad|>": { id: "<|pad|>", ids: [0], tokens: ["<|pad|>"] },
          },
        };
      },
      /puts tokens \[1,0\] before a text/,
    ],
  ])("refuses %s", async (_, change, message) => {
    await expect(changed(change)).rejects.toMatchObject({
      code: "ERR_RLSD_TOKENIZER",
      message: expect.stringMatching(message),
    });
  });

  /** Notes on what a changed SentencePiece tokenizer gives. */
  async function pieces(change: (json: TokenizerJson) => void): Promise<readonly string[]> {
    await using source = await loadPolicy(join(__dirname, "fixtures/gguf/llama-pieces.gguf"));
    const plain = join(folder, `pieces-${count++}`);
    await source.save(plain);
    const file = join(plain, "tokenizer.json");
    const json = JSON.parse(readFileSync(file, "utf8"));
    change(json);
    writeFileSync(file, JSON.stringify(json));
    return (await exportModel(plain, `${plain}.gguf`)).notes;
  }
  const metaspace = (scheme: string, split: boolean) => (json: TokenizerJson) => {
    json.normalizer = null;
    json.pre_tokenizer = { type: "Metaspace", replacement: "\u2581", prepend_scheme: scheme, split };
  };

  test("says where llama.cpp begins a text of pieces otherwise", async () => {
    expect(await pieces(() => {})).toEqual([]);
    expect(await pieces(metaspace("never", false))).toEqual([]);
    expect(await pieces(metaspace("always", false))).toEqual([expect.stringMatching(/begins with one too/)]);
    expect(await pieces(metaspace("first", false))).toEqual([expect.stringMatching(/follows a special token/)]);
  });

  const merges = (json: TokenizerJson) => json.model.merges as [string, string][];

  test.each<[string, (json: TokenizerJson) => void, RegExp]>([
    ["that are cut at spaces first", metaspace("always", true), /does not compute the normalizer and pre_tokenizer/],
    [
      "some parts of which are not merged",
      (json) => {
        json.model.merges = merges(json).filter(([left, right]) => left !== "\u2581h" || right !== "ello");
      },
      /not those of a SentencePiece tokenizer.*"\u2581h" and "ello" are not merged/,
    ],
    [
      "that merge early from some parts and late from others",
      (json) => {
        const [first, ...others] = merges(json).filter(([left, right]) => left + right === "\u2581the");
        json.model.merges = [first, ...merges(json).filter((merge) => merge !== first), ...others];
      },
      /"\u2581the" is merged early from some parts and late from others/,
    ],
    [
      "without a token for each byte",
      (json) => {
        delete (json.model.vocab as Record<string, number>)["<0x41>"];
      },
      /has no token <0x41>/,
    ],
  ])("refuses pieces %s", async (_, change, message) => {
    await expect(pieces(change)).rejects.toMatchObject({
      code: "ERR_RLSD_TOKENIZER",
      message: expect.stringMatching(message),
    });
  });

  test("refuses a model without an end token, or without a tokenizer", async () => {
    await expect(changed(() => {}, {})).rejects.toMatchObject({
      code: "ERR_RLSD_TOKENIZER",
      message: expect.stringContaining("no end token"),
    });
    await using policy = await tinyPolicy();
    const refused = policy.saveGguf(join(folder, "without.gguf"));
    await expect(refused).rejects.toMatchObject({
      code: "ERR_RLSD_TOKENIZER",
      message: expect.stringContaining("no tokenizer.json"),
    });
  });

  test("tells control tokens, by their looks too, from a user's own", async () => {
    const { metadata } = await changed((json) => {
      const added = json.added_tokens as { content: string; special: boolean; id: number }[];
      added.push({ id: 366, content: "<|fim|>", special: false }, { id: 367, content: "<tool>", special: false });
    });
    const types = metadata.get("tokenizer.ggml.token_type") as number[];
    expect([types[0], types[366], types[367], types[368]]).toEqual([3, 3, 4, 5]);
  });

  test("leaves out added tokens that the model does not have, and refuses others", async () => {
    const json = (id: number, added: object[]) => {
      const file = JSON.parse(files["tokenizer.json"]!.toString());
      file.added_tokens.push(...added);
      file.model.vocab.beyond = id;
      return JSON.stringify(file);
    };
    const image = { id: 370, content: "<image>", special: true };
    for (const [added, outcome] of [
      [[image], ["the model has no tokens for <image>: left out"]],
      [[], undefined],
    ] as const) {
      const own = { "tokenizer.json": json(370, [...added]), "tokenizer_config.json": "{}" };
      await using policy = await tinyPolicy({ vocabSize: 370, endTokenIds: [2] }, { files: own });
      const saving = policy.saveGguf(join(folder, `beyond-${added.length}.gguf`));
      if (outcome !== undefined) expect((await saving).notes).toEqual(outcome);
      else
        await expect(saving).rejects.toMatchObject({
          message: expect.stringContaining("an id of 370, but the model has 370"),
        });
    }
  });

  test("keeps a name from being taken for a Phi 3's, whose special tokens llama.cpp treats otherwise", async () => {
    await using policy = await made({});
    await policy.saveGguf(join(folder, "my-phi-3.gguf"));
    expect(readGguf(join(folder, "my-phi-3.gguf")).metadata.get("general.name")).toBe("my-phi 3");
  });
});
