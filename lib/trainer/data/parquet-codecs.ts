import { brotliDecompressSync, gunzipSync, inflateRawSync } from "node:zlib";
import { decompress as zstandard } from "fzstd";
import { snappyUncompressor } from "hysnappy";
import { within } from "../../time-limit.js";

/** Bytes as they are compressed, and how many they were: other than that is damage. */
type Decompress = (input: Uint8Array, size: number) => Uint8Array;

const endless = () => new Error("a page is decompressed without an end: damaged");

const damaged = (codec: string) => new Error(`a page is no ${codec}: damaged`);

/** Little-endian, of up to four bytes. */
function number(input: Uint8Array, at: number, bytes: number): number {
  let value = 0;
  for (let i = 0; i < bytes; i++) value += input[at + i]! * 2 ** (8 * i);
  return value;
}

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md */
function lz4(input: Uint8Array, size: number): Uint8Array {
  const output = new Uint8Array(size);
  let [at, written] = [0, 0];
  const lengthOf = (half: number): number => {
    let length = half;
    for (let byte = half === 15 ? 255 : 0; byte === 255; length += byte) byte = input[at++] ?? 0;
    return length;
  };
  while (at < input.length) {
    const token = input[at++]!;
    const literals = lengthOf(token >> 4);
    if (!(at + literals <= input.length && written + literals <= size)) throw damaged("LZ4");
    output.set(input.subarray(at, at + literals), written);
    at += literals;
    written += literals;
    if (at >= input.length) break;
    const distance = number(input, at, 2);
    at += 2;
    const length = lengthOf(token & 15) + 4;
    if (!(distance > 0 && distance <= written && written + length <= size)) throw damaged("LZ4");
    // It may reach into what it writes.
    for (const end = written + length; written < end; written++) output[written] = output[written - distance]!;
  }
  if (written !== size) throw damaged("LZ4");
  return output;
}

/** LZ4 as Hadoop writes it: blocks, each behind its two sizes; else a block alone, which other writers called so too. */
function hadoopLz4(input: Uint8Array, size: number): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  const blocks: { at: number; length: number; size: number }[] = [];
  let [at, total] = [0, 0];
  while (at + 8 <= input.length) {
    const block = { at: at + 8, length: view.getUint32(at + 4), size: view.getUint32(at) };
    blocks.push(block);
    at = block.at + block.length;
    total += block.size;
  }
  if (at !== input.length || total !== size) return lz4(input, size);
  const parts = blocks.map((block) => lz4(input.subarray(block.at, block.at + block.length), block.size));
  return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
}

/** The largest window that a decoder of Zstandard takes unasked. */
const LARGEST_WINDOW = 2 ** 27;

/** Bytes of a block of Zstandard, at most. */
const ZSTANDARD_BLOCK = 2 ** 17;

/**
 * That frames of Zstandard (RFC 8878) have a window of some size, and come to no more than their page: the library would make
 * room for whatever they say.
 */
function checkFrames(input: Uint8Array, size: number): void {
  let [at, said, most] = [0, 0, 0];
  while (at < input.length) {
    if (number(input, at + 1, 3) === 0x184d2a && input[at]! >> 4 === 5) {
      at += 8 + number(input, at + 4, 4);
      continue;
    }
    const flags = input[at + 4]!;
    const single = (flags >> 5) & 1;
    const window = single ? 0 : 2 ** (10 + (input[at + 5]! >> 3)) * (1 + (input[at + 5]! & 7) / 8);
    const contentBytes = [single, 2, 4, 8][flags >> 6]!;
    at += 6 - single + [0, 1, 2, 4][flags & 3]!;
    const content = number(input, at, contentBytes) + (contentBytes === 2 ? 256 : 0);
    at += contentBytes;
    for (let last = 0; last === 0; ) {
      const block = number(input, at, 3);
      const kind = (block >> 1) & 3;
      at += 3 + (kind === 1 ? 1 : block >> 3);
      most += kind === 2 ? ZSTANDARD_BLOCK : block >> 3;
      last = block & 1;
      if (!(at <= input.length)) throw damaged("Zstandard");
    }
    if (flags & 4) at += 4;
    said += content;
    if (said > size || window > LARGEST_WINDOW) throw damaged("Zstandard");
  }
  // A writer that empties its buffer often has blocks that are far from full.
  if (most > 64 * (size + 2 ** 20)) throw damaged("Zstandard");
}

const CODECS: Readonly<Record<string, Decompress>> = {
  UNCOMPRESSED: (input) => input,
  SNAPPY: snappyUncompressor(),
  // What zlib gives lies in a larger buffer that holds other things. A bound of 0 is refused.
  GZIP: (input, size) => {
    const inflate = input[0] === 31 ? gunzipSync : inflateRawSync;
    return new Uint8Array(inflate(input, { maxOutputLength: Math.max(1, size) }));
  },
  BROTLI: (input, size) => new Uint8Array(brotliDecompressSync(input, { maxOutputLength: Math.max(1, size) })),
  LZ4: hadoopLz4,
  LZ4_RAW: lz4,
  ZSTD: (input, size) => {
    checkFrames(input, size);
    return zstandard(input);
  },
};

/** A page as it is compressed, and the bytes it was. */
export interface Packed {
  readonly bytes: Uint8Array;
  readonly size: number;
}

/** The pages of a column, decompressed in bounded time and memory. */
export function decompress(codec: string, pages: readonly Packed[]): Uint8Array[] {
  const one = Object.hasOwn(CODECS, codec) ? CODECS[codec] : undefined;
  if (one === undefined) throw new Error(`its pages are compressed by ${codec}, which is not known`);
  const all = () =>
    pages.map(({ bytes, size }) => {
      const page = one(bytes, size);
      if (page.length === size) return page;
      throw new Error(`a page has ${page.length} bytes, and says ${size}: damaged`);
    });
  // The other codecs end by themselves. Two seconds and 5 us a byte: far more than slow processors need.
  const size = pages.reduce((sum, page) => sum + page.size, 0);
  return codec === "ZSTD" ? within(2000 + size / 200, all, endless) : all();
}
