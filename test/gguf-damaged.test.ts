import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGguf } from "../lib/gguf/read.js";
import { bool, encodeHeader, f32, string, strings, type TensorPlan, u32, type Value } from "../lib/gguf/write.js";
import { loadChatTemplate, loadPolicy, loadTokenizer, RlsdError } from "../lib/index.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-gguf-damaged-"));
const whole = readFileSync(join(__dirname, "fixtures/gguf/qwen3-bytes.gguf"));

let count = 0;
function write(bytes: Uint8Array): string {
  const file = join(folder, `${count++}.gguf`);
  writeFileSync(file, bytes);
  return file;
}

/** A copy with other bytes from a place on. */
function patched(at: number, ...bytes: number[]): Buffer {
  const copy = Buffer.from(whole);
  Buffer.from(bytes).copy(copy, at);
  return copy;
}

const u64 = (value: bigint): number[] => [...new Uint8Array(BigUint64Array.of(value).buffer)];
/** Where the value of a key begins: its type. */
const entryOf = (key: string): number => whole.indexOf(key) + key.length;
/** Where the entry of a tensor begins behind its name: its number of dimensions. */
const tensorOf = (name: string): number => whole.indexOf(name) + name.length;

async function refused(bytes: Uint8Array): Promise<RlsdError> {
  const file = write(bytes);
  const error: unknown = await loadPolicy(file).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(RlsdError);
  expect((error as RlsdError).message.startsWith(`${file}: `)).toBe(true);
  return error as RlsdError;
}

const tokens = "tokenizer.ggml.tokens";
const down = "blk.0.ffn_down.weight"; // two dimensions: 4 bytes, 8 each, then the type, then the offset

test.each<[string, Buffer, RegExp]>([
  ["no GGUF file", patched(0, 0x50, 0x4b, 3, 4), /is no GGUF file: expected it to begin with "GGUF"/],
  ["an older format", patched(0, ...Buffer.from("tjgg")), /is of a format before GGUF/],
  ["version 1", patched(4, 1), /is of version 1: expected a little-endian GGUF file of version 2 or 3/],
  ["a version to come", patched(4, 4), /is of version 4/],
  ["big-endian", patched(4, 0, 0, 0, 3), /is big-endian/],
  ["an absurd number of tensors", patched(8, ...u64(2n ** 63n)), /claims 9223372036854776000 tensors but the file has/],
  ["an absurd number of values", patched(16, ...u64(2n ** 40n)), /claims 1099511627776 values of metadata/],
  ["an absurd key", patched(24, ...u64(2n ** 62n)), /claims 4611686018427388000 bytes of a text/],
  ["a key of a megabyte", patched(24, ...u64(66000n)), /damaged|claims 66000 bytes/],
  [
    "a type that there is not",
    patched(entryOf(tokens), 77),
    /"tokenizer.ggml.tokens" is of type 77, which there is not/,
  ],
  ["a list of lists", patched(entryOf(tokens) + 4, 9), /is a list of lists/],
  ["a list of lists' type", patched(entryOf(tokens) + 4, 13), /is of type 13/],
  [
    "an absurd list",
    patched(entryOf(tokens) + 8, ...u64(2n ** 50n)),
    /claims 1125899906842624 values of "tokenizer.ggml.tokens"/,
  ],
  ["no dimensions", patched(tensorOf(down), 0), /expected 1 to 4 dimensions but found 0/],
  [
    "dimensions beyond number",
    patched(tensorOf(down), 255, 255, 255, 255),
    /expected 1 to 4 dimensions but found 4294967295/,
  ],
  ["an empty tensor", patched(tensorOf(down) + 4, ...u64(0n)), /expected a shape but found \[32, 0\]/],
  [
    "a tensor beyond number",
    patched(tensorOf(down) + 4, ...u64(2n ** 60n)),
    /expected a shape but found \[32, 1152921504606847000\]/,
  ],
  [
    "a tensor beyond the file",
    patched(tensorOf(down) + 4, ...u64(2n ** 30n)),
    /"blk.0.ffn_down.weight" ends at byte \d+ but the file has \d+: truncated/,
  ],
  [
    "an offset beyond the file",
    patched(tensorOf(down) + 24, ...u64(2n ** 62n)),
    /"blk.0.ffn_down.weight" ends at byte/,
  ],
  ["an offset between two numbers", patched(tensorOf(down) + 24, 7), /begins at \d+: expected a multiple of 32/],
])("%s", async (_, bytes, message) => {
  const { code, message: told } = await refused(bytes);
  expect([code, told]).toEqual(["ERR_RLSD_MODEL_FILE", expect.stringMatching(message)]);
});

test.each([
  [16, "IQ2_XXS"],
  [20, "IQ4_NL"],
  [99, "number 99"],
])("a tensor of type %d is refused by its name", async (type, name) => {
  const { code, message } = await refused(patched(tensorOf(down) + 20, type));
  expect([code, message]).toEqual([
    "ERR_RLSD_UNSUPPORTED_MODEL",
    expect.stringContaining(`is of type ${name}, which is not supported: expected one of F32, F16`),
  ]);
});

test("a file that ends early is refused wherever it ends", async () => {
  for (let length = 0; length < whole.length; length += 1013) {
    const { code } = await refused(whole.subarray(0, length));
    expect([length, code]).toEqual([length, "ERR_RLSD_MODEL_FILE"]);
  }
});

test("a file with a wrong byte is read, or refused by an error of the package, and takes no time", async () => {
  const header = whole.indexOf(down) + 200;
  let seed = 7;
  const next = (most: number) => {
    seed = (seed * 48271) % 2147483647;
    return seed % most;
  };
  const begun = performance.now();
  for (let i = 0; i < 400; i++) {
    const file = write(patched(next(header), next(256)));
    for (const read of [readGguf, loadTokenizer, loadChatTemplate]) {
      const error: unknown = await read(file).then(
        () => undefined,
        (caught: unknown) => caught,
      );
      if (error !== undefined) expect(error).toBeInstanceOf(RlsdError);
    }
  }
  expect(performance.now() - begun).toBeLessThan(60_000);
});

describe("what is whole and not a model", () => {
  const plain: Record<string, Value> = {
    "general.architecture": string("llama"),
    "llama.embedding_length": u32(8),
    "llama.block_count": u32(1),
    "llama.attention.head_count": u32(2),
    "llama.feed_forward_length": u32(8),
    "llama.context_length": u32(32),
    "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
  };
  const matrix = (name: string, ...shape: number[]): TensorPlan => ({ name, shape, type: "F32" });
  const layer = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
  const tensors = [
    matrix("token_embd.weight", 12, 8),
    matrix("output_norm.weight", 8),
    ...["attn_norm", "ffn_norm"].map((name) => matrix(`blk.0.${name}.weight`, 8)),
    ...layer.map((name) => matrix(`blk.0.${name}.weight`, 8, 8)),
  ];

  function file(metadata: Record<string, Value>, plans = tensors): string {
    const header = encodeHeader(new Map(Object.entries({ ...plain, ...metadata })), plans);
    const bytes = plans.reduce((sum, { shape }) => sum + 4 * Math.ceil(shape.reduce((a, b) => a * b, 1) / 8) * 8, 0);
    return write(Buffer.concat([header, Buffer.alloc(bytes)]));
  }

  test("the model itself loads, without a tokenizer, with bias or shape as its tensors have them", async () => {
    await using policy = await loadPolicy(file({}));
    expect([policy.tokenizer, policy.config.headDim, policy.config.tieEmbeddings]).toEqual([undefined, 4, true]);
  });

  test.each<[string, Record<string, Value>, string, RegExp]>([
    [
      "an unknown architecture",
      { "general.architecture": string("mamba") },
      "ERR_RLSD_UNSUPPORTED_MODEL",
      /"mamba" is not supported: expected one of llama, granite, smollm3, qwen2/,
    ],
    [
      "no architecture",
      { "general.architecture": u32(1) },
      "ERR_RLSD_MODEL_FILE",
      /expected a text for general.architecture/,
    ],
    [
      "experts",
      { "llama.expert_count": u32(8) },
      "ERR_RLSD_UNSUPPORTED_MODEL",
      /llama.expert_count 8 is not supported/,
    ],
    [
      "layers beyond number",
      { "llama.block_count": u32(2 ** 31) },
      "ERR_RLSD_MODEL_FILE",
      /expected a whole number from 1 to 65536 for llama.block_count/,
    ],
    ["half a layer", { "llama.block_count": f32(0.5) }, "ERR_RLSD_MODEL_FILE", /for llama.block_count but found 0.5/],
    ["no heads", { "llama.attention.head_count": u32(0) }, "ERR_RLSD_MODEL_FILE", /for llama.attention.head_count/],
    [
      "a width by layer",
      { "llama.feed_forward_length": strings(["8"]) },
      "ERR_RLSD_MODEL_FILE",
      /expected a number for llama.feed_forward_length but found a list of 1/,
    ],
    [
      "a scaling that is not computed",
      { "llama.rope.scaling.type": string("longrope") },
      "ERR_RLSD_UNSUPPORTED_MODEL",
      /rope.scaling.type "longrope"/,
    ],
    [
      "a tensor too few",
      { "llama.block_count": u32(2) },
      "ERR_RLSD_MODEL_FILE",
      /tensor "blk.1.[a-z_]+.weight" is missing: expected \[8/,
    ],
    [
      "a tensor of another shape",
      { "llama.feed_forward_length": u32(16) },
      "ERR_RLSD_MODEL_FILE",
      /tensor "blk.0.ffn_gate.weight": expected \[16, 8\] but found \[8, 8\]/,
    ],
    [
      "an alignment of 3",
      { "general.alignment": u32(3) },
      "ERR_RLSD_MODEL_FILE",
      /power of two .*general.alignment but found 3/,
    ],
    [
      "an unknown tokenizer",
      { "tokenizer.ggml.model": string("t5") },
      "ERR_RLSD_TOKENIZER",
      /"t5" is not supported: expected "gpt2" or "llama"/,
    ],
    [
      "no tokens",
      { "tokenizer.ggml.model": string("gpt2") },
      "ERR_RLSD_MODEL_FILE",
      /expected a list of texts for tokenizer.ggml.tokens/,
    ],
    [
      "an unknown way to cut texts",
      {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.tokens": strings(["a"]),
        "tokenizer.ggml.pre": string("chatglm-bpe"),
      },
      "ERR_RLSD_TOKENIZER",
      /tokenizer.ggml.pre "chatglm-bpe" is not supported: expected one of gpt-2/,
    ],
    [
      "pieces without scores",
      { "tokenizer.ggml.model": string("llama"), "tokenizer.ggml.tokens": strings(["a"]) },
      "ERR_RLSD_MODEL_FILE",
      /1 numbers for tokenizer.ggml.scores/,
    ],
    ["a part of a file", { "split.count": u32(3) }, "ERR_RLSD_MODEL_FILE", /is one of 3 files: expected a whole one/],
    [
      "a merge of one part",
      {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.tokens": strings(["a"]),
        "tokenizer.ggml.pre": string("gpt-2"),
        "tokenizer.ggml.merges": strings(["a"]),
      },
      "ERR_RLSD_MODEL_FILE",
      /two parts in each, not "a" for tokenizer.ggml.merges/,
    ],
    [
      "a flag that is none",
      { "llama.rope.scaling.type": bool(true) },
      "ERR_RLSD_MODEL_FILE",
      /expected a text for llama.rope.scaling.type/,
    ],
  ])("%s", async (_, metadata, code, message) => {
    await expect(loadPolicy(file(metadata))).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("a tensor too many, one twice", async () => {
    const more = file({}, [...tensors, matrix("blk.0.attn_sinks.weight", 8)]);
    await expect(loadPolicy(more)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringContaining('"blk.0.attn_sinks.weight" has no place'),
    });
    const twice = file({}, [...tensors, matrix("output_norm.weight", 8)]);
    await expect(loadPolicy(twice)).rejects.toMatchObject({
      message: expect.stringContaining('"output_norm.weight" is there twice'),
    });
  });

  test("factors of more pairs than there are", async () => {
    const more = file({}, [...tensors, matrix("rope_freqs.weight", 65537)]);
    await expect(loadPolicy(more)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringContaining("factors of 65537 pairs"),
    });
    const foreign = file({}, [...tensors, matrix("rope_freqs.weight", 2)]);
    await expect(loadPolicy(foreign)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringContaining("otherwise than Llama 3.1 does"),
    });
  });

  test("a folder or a pipe of that name, and no file at all", async () => {
    mkdirSync(join(folder, "folder.gguf"));
    execFileSync("mkfifo", [join(folder, "pipe.gguf")]);
    for (const name of ["folder.gguf", "pipe.gguf", "nothing.gguf"]) {
      await expect(loadPolicy(join(folder, name))).rejects.toMatchObject({ code: "ERR_RLSD_MODEL_FILE" });
      await expect(loadTokenizer(join(folder, name))).rejects.toMatchObject({ code: "ERR_RLSD_MODEL_FILE" });
    }
  });
});
