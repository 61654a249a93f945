import { f16Values } from "../rounding.js";
import type { TensorType } from "./types.js";

/** Reads one block from `at` on and writes its numbers from `to` on. Each product and each sum is rounded to float32. */
type Decoder = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

const f = Math.fround;

function half(bytes: Uint8Array, at: number): number {
  return f16Values()[(bytes[at] as number) | ((bytes[at + 1] as number) << 8)] as number;
}

const signed = (byte: number): number => (byte << 24) >> 24;

/** Blocks of 32 with a scale, and a smallest number where `offset` is; `high`: where bits above the fourth lie, if any do. */
function small(offset: boolean, high: boolean): Decoder {
  const middle = offset ? 0 : high ? 16 : 8;
  const bits = offset ? 4 : 2;
  const quants = bits + (high ? 4 : 0);
  return (bytes, at, out, to) => {
    const scale = half(bytes, at);
    const least = offset ? half(bytes, at + 2) : 0;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + quants + i] as number;
      let [low, top] = [pair & 15, pair >> 4];
      if (high) {
        low |= (((bytes[at + bits + (i >> 3)] as number) >> (i & 7)) & 1) << 4;
        top |= (((bytes[at + bits + 2 + (i >> 3)] as number) >> (i & 7)) & 1) << 4;
      }
      const [first, second] = [f(scale * (low - middle)), f(scale * (top - middle))];
      // Not where nothing is added: -0 would become 0.
      out[to + i] = offset ? first + least : first;
      out[to + 16 + i] = offset ? second + least : second;
    }
  };
}

const q8: Decoder = (bytes, at, out, to) => {
  const scale = half(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = scale * signed(bytes[at + 2 + i] as number);
};

const q2k: Decoder = (bytes, at, out, to) => {
  const [scale, least] = [half(bytes, at + 80), half(bytes, at + 82)];
  for (let group = 0; group < 16; group++) {
    const packed = bytes[at + group] as number;
    const [own, low] = [f(scale * (packed & 15)), f(least * (packed >> 4))];
    // Sixteen numbers: two groups of each quarter of 32 bytes, by pairs of bits.
    const from = at + 16 + 32 * (group >> 3) + 16 * (group & 1);
    const shift = 2 * ((group >> 1) & 3);
    for (let i = 0; i < 16; i++) {
      out[to + 16 * group + i] = f(own * (((bytes[from + i] as number) >> shift) & 3)) - low;
    }
  }
};

/** The 6 bits of the scale of one group of a Q3_K block: four low ones, and two high ones. */
function scale3(bytes: Uint8Array, at: number, group: number): number {
  const low = ((bytes[at + (group & 7)] as number) >> (4 * (group >> 3))) & 15;
  const high = ((bytes[at + 8 + (group & 3)] as number) >> (2 * (group >> 2))) & 3;
  return (low | (high << 4)) - 32;
}

const q3k: Decoder = (bytes, at, out, to) => {
  const scale = half(bytes, at + 108);
  for (let group = 0; group < 16; group++) {
    const own = f(scale * scale3(bytes, at + 96, group));
    const part = 16 * (group & 1);
    const from = at + 32 + 32 * (group >> 3) + part;
    const shift = 2 * ((group >> 1) & 3);
    const bit = group >> 1;
    for (let i = 0; i < 16; i++) {
      const missing = 1 - (((bytes[at + part + i] as number) >> bit) & 1);
      out[to + 16 * group + i] = own * ((((bytes[from + i] as number) >> shift) & 3) - 4 * missing);
    }
  }
};

/** Scale and least number of one of the eight groups of a Q4_K or Q5_K block, 6 bits each. */
function scale4(bytes: Uint8Array, at: number, group: number): [scale: number, least: number] {
  const byte = (i: number) => bytes[at + i] as number;
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  const high = (i: number) => (byte(i) >> 2) & 48;
  return [(byte(group + 4) & 15) | high(group - 4), (byte(group + 4) >> 4) | high(group)];
}

function large(fifth: boolean): Decoder {
  return (bytes, at, out, to) => {
    const [scale, least] = [half(bytes, at), half(bytes, at + 2)];
    const quants = at + (fifth ? 48 : 16);
    for (let group = 0; group < 8; group++) {
      const [s, m] = scale4(bytes, at + 4, group);
      const [own, low] = [f(scale * s), f(least * m)];
      const [from, shift] = [quants + 32 * (group >> 1), 4 * (group & 1)];
      for (let i = 0; i < 32; i++) {
        let q = ((bytes[from + i] as number) >> shift) & 15;
        if (fifth) q |= (((bytes[at + 16 + i] as number) >> group) & 1) << 4;
        out[to + 32 * group + i] = f(own * q) - low;
      }
    }
  };
}

const q6k: Decoder = (bytes, at, out, to) => {
  const scale = half(bytes, at + 208);
  for (let group = 0; group < 16; group++) {
    const own = f(scale * signed(bytes[at + 192 + group] as number));
    const [side, row, part] = [group >> 3, (group >> 1) & 3, 16 * (group & 1)];
    const low = at + 64 * side + 32 * (row & 1) + part;
    const high = at + 128 + 32 * side + part;
    for (let i = 0; i < 16; i++) {
      const nibble = ((bytes[low + i] as number) >> (4 * (row >> 1))) & 15;
      const pair = ((bytes[high + i] as number) >> (2 * row)) & 3;
      out[to + 16 * group + i] = own * ((nibble | (pair << 4)) - 32);
    }
  }
};

const DECODERS: Readonly<Record<string, Decoder>> = {
  Q4_0: small(false, false),
  Q4_1: small(true, false),
  Q5_0: small(false, true),
  Q5_1: small(true, true),
  Q8_0: q8,
  Q2_K: q2k,
  Q3_K: q3k,
  Q4_K: large(false),
  Q5_K: large(true),
  Q6_K: q6k,
};

/** Of types whose numbers stand alone. */
const WIDENERS: Readonly<Record<string, (bytes: Uint8Array) => Float32Array>> = {
  F32: (bytes) => new Float32Array(new Uint8Array(bytes).buffer),
  F16: (bytes) =>
    Float32Array.from(new Uint16Array(new Uint8Array(bytes).buffer), (bits) => f16Values()[bits] as number),
  BF16: (bytes) =>
    new Float32Array(Uint32Array.from(new Uint16Array(new Uint8Array(bytes).buffer), (bits) => bits << 16).buffer),
};

/** Whole blocks as float32 numbers, as ggml's own reference has them, to the bit. */
export function dequantize(bytes: Uint8Array, { name, blockSize, blockBytes }: TensorType): Float32Array {
  const widen = WIDENERS[name];
  if (widen !== undefined) return widen(bytes);
  const decode = DECODERS[name] as Decoder;
  const blocks = bytes.length / blockBytes;
  const out = new Float32Array(blocks * blockSize);
  for (let i = 0; i < blocks; i++) decode(bytes, i * blockBytes, out, i * blockSize);
  return out;
}
