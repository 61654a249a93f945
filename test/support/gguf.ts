import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { EnginePolicy, NewModelConfig } from "../../lib/index.js";
import { tinyPolicy } from "./small-policy.js";

const models = join(import.meta.dirname, "../fixtures/models");

/** A reader of GGUF files for tests, which shares nothing with the package's and checks nothing. */
export interface GgufFile {
  readonly metadata: Map<string, unknown>;
  readonly tensors: Map<string, { type: number; shape: number[]; data: Buffer }>;
}

const TYPES: Record<number, [block: number, bytes: number]> = { 0: [1, 4], 1: [1, 2], 8: [32, 34], 30: [1, 2] };

export function readGguf(file: string): GgufFile {
  const bytes = readFileSync(file);
  let at = 8;
  const next = (count: number): Buffer => {
    at += count;
    return bytes.subarray(at - count, at);
  };
  const u32 = () => next(4).readUInt32LE();
  const u64 = () => Number(next(8).readBigUInt64LE());
  const text = () => next(u64()).toString("utf8");
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return next(4).readInt32LE();
    if (type === 6) return next(4).readFloatLE();
    if (type === 7) return next(1)[0] === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`no reader for type ${type}`);
    const of = u32();
    return Array.from({ length: u64() }, () => value(of));
  };
  const [tensorCount, valueCount] = [u64(), u64()];
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < valueCount; i++) {
    const key = text();
    metadata.set(key, value(u32()));
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64).reverse();
    return { name, shape, type: u32(), offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  const tensors: GgufFile["tensors"] = new Map();
  for (const { name, shape, type, offset } of infos) {
    const [block, size] = TYPES[type]!;
    const start = data + offset;
    const length = (shape.reduce((a, b) => a * b, 1) / block) * size;
    tensors.set(name, { type, shape, data: bytes.subarray(start, start + length) });
  }
  return { metadata, tensors };
}

export const floatsOf = (data: Buffer): Float32Array =>
  new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));

/** A copy of a model's fixture, in `folder`, with a tokenizer of its size. */
export function fixtureWithTokenizer(name: string, folder: string): string {
  const copy = mkdtempSync(join(folder, `${name}-`));
  cpSync(join(models, name), copy, { recursive: true });
  writeByteTokenizer(copy, JSON.parse(readFileSync(join(copy, "config.json"), "utf8")).vocab_size);
  return copy;
}

/** Files of a tokenizer of 362 tokens. */
export const tokenizerFiles = Object.fromEntries(
  ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map((name) => [
    name,
    readFileSync(join(models, "tokenizer-bpe", name)),
  ]),
);

/** A new model with that tokenizer. */
export const modelWithTokenizer = (config: Partial<NewModelConfig>): Promise<EnginePolicy> =>
  tinyPolicy({ vocabSize: 370, endTokenIds: [2], ...config }, { files: tokenizerFiles });

/** A folder's tokenizer: `<|end|>`, a line's end, a space and letters, each byte a token, of `size` tokens. */
function writeByteTokenizer(folder: string, size: number): void {
  const letters = [..."\u010a\u0120abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!"].slice(
    0,
    size - 1,
  );
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizer = {
    version: "1.0",
    added_tokens: [{ id: 0, content: "<|end|>", special: true, normalized: false, lstrip: false, rstrip: false }],
    normalizer: null,
    pre_tokenizer: bytes,
    post_processor: null,
    decoder: bytes,
    model: {
      type: "BPE",
      vocab: Object.fromEntries([["<|end|>", 0], ...letters.map((c, i) => [c, i + 1])]),
      merges: [],
    },
  };
  writeFileSync(`${folder}/tokenizer.json`, JSON.stringify(tokenizer));
  writeFileSync(`${folder}/tokenizer_config.json`, JSON.stringify({ eos_token: "<|end|>" }));
}
