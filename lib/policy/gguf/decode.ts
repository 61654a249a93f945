import type { FileHandle } from "node:fs/promises";
import { dequantize } from "../../gguf/dequantize.js";
import { f16Bits, f16Values } from "../../rounding.js";
import { openForReading, readExactly } from "../safetensors.js";
import type { ParameterSource } from "../sources.js";
import { unpairRows } from "./pair-rows.js";
import type { Decoding } from "./sources.js";

/** Numbers that are read at a time; whole blocks of every type. */
const CHUNK = 1 << 20;

const PLAIN = ["F32", "F16", "BF16"] as const;
type PlainType = (typeof PLAIN)[number];

/** A type whose numbers are taken as they are. */
const plainType = ({ type }: Decoding): PlainType | undefined => PLAIN.find((name) => name === type.name);

/** Vectors of a GGUF file are float32 beside matrices of any type. */
const isVector = ({ entry }: ParameterSource): boolean => entry.shape.length === 1;

const scratch = new Uint32Array(1);
const asFloat = new Float32Array(scratch.buffer);

/** A number's bits in a 16-bit type; undefined: it does not have it. */
function narrow(value: number, type: PlainType): number | undefined {
  if (type === "F16") {
    const bits = f16Bits(value);
    return Object.is(f16Values()[bits], value) ? bits : undefined;
  }
  asFloat[0] = value;
  return ((scratch[0] as number) & 0xffff) === 0 ? (scratch[0] as number) >>> 16 : undefined;
}

/** A vector's numbers as the parameter has them. */
async function vectorOf(source: ParameterSource, handle: FileHandle): Promise<Float32Array> {
  const { entry, file } = source;
  const { type, pairedRows, offset } = source.decoding as Decoding;
  const raw = new Uint8Array(entry.end - entry.start);
  await readExactly(handle, raw, entry.start, file);
  const values = dequantize(raw, type).map((value) => value - offset);
  if (pairedRows === undefined) return values;
  const bytes = new Uint8Array(values.buffer as ArrayBuffer);
  for (let at = 0; at < bytes.length; at += 4 * pairedRows) {
    bytes.set(unpairRows(bytes.slice(at, at + 4 * pairedRows), pairedRows), at);
  }
  return values;
}

/** The type that all matrices have in a GGUF file, where they are held in it: it has the vectors' numbers too. */
export async function heldIn(sources: readonly ParameterSource[]): Promise<PlainType> {
  const types = new Set(
    sources.filter((source) => !isVector(source)).map((source) => plainType(source.decoding as Decoding)),
  );
  const [type = "F32"] = types;
  if (types.size !== 1 || type === "F32") return "F32";
  const handle = await openForReading((sources[0] as ParameterSource).file);
  try {
    for (const source of sources.filter(isVector)) {
      const values = await vectorOf(source, handle);
      if (values.some((value) => narrow(value, type) === undefined)) return "F32";
    }
  } finally {
    await handle.close();
  }
  return type;
}

interface Part {
  readonly dtype: PlainType;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

async function vectorPart(source: ParameterSource, handle: FileHandle, held: PlainType): Promise<Part> {
  const values = await vectorOf(source, handle);
  if (held === "F32") return { dtype: held, bytes: new Uint8Array(values.buffer as ArrayBuffer) };
  return {
    dtype: held,
    bytes: new Uint8Array(Uint16Array.from(values, (value) => narrow(value, held) as number).buffer),
  };
}

/**
 * The numbers of a tensor as the parameter has them, part by part: a head at a time where its rows are moved.
 *
 * @param held what `heldIn` says
 */
export async function* decoded(source: ParameterSource, handle: FileHandle, held: PlainType): AsyncGenerator<Part> {
  if (isVector(source)) return yield await vectorPart(source, handle, held);
  const { file, entry } = source;
  const { type, pairedRows } = source.decoding as Decoding;
  const columns = entry.shape[1] as number;
  const step = ((pairedRows === undefined ? CHUNK : pairedRows * columns) / type.blockSize) * type.blockBytes;
  const plain = plainType(source.decoding as Decoding);
  for (let at = entry.start; at < entry.end; at += step) {
    const raw = new Uint8Array(Math.min(step, entry.end - at));
    await readExactly(handle, raw, at, file);
    const bytes = plain === undefined ? new Uint8Array(dequantize(raw, type).buffer as ArrayBuffer) : raw;
    yield { dtype: plain ?? "F32", bytes: pairedRows === undefined ? bytes : unpairRows(bytes, pairedRows) };
  }
}
