import { type FileHandle, open } from "node:fs/promises";
import { isObject } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { openRegular } from "../regular-file.js";

/** One tensor of a safetensors file; start and end are bytes of the file. */
export interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

const BYTES: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** Of a type that a header may have. */
export const elementBytes = (dtype: string): number => BYTES[dtype] as number;

/** The format's own limit, which keeps a damaged length from being believed. */
const MAX_HEADER = 100_000_000;

export function fileError(file: string, message: string): RlsdError {
  return new RlsdError("ERR_RLSD_MODEL_FILE", `${file}: ${message}`);
}

export async function openForReading(file: string): Promise<FileHandle> {
  try {
    return await openRegular(file);
  } catch (error) {
    throw fileError(file, `could not be opened: ${messageOf(error)}`);
  }
}

/** Fills `bytes` from `position` on, or says that the file is too short. */
export async function readExactly(
  handle: FileHandle,
  bytes: Uint8Array,
  position: number,
  file: string,
): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle
      .read(bytes, done, bytes.length - done, position + done)
      .catch((error: unknown) => {
        throw fileError(file, `could not be read: ${messageOf(error)}`);
      });
    if (bytesRead === 0) {
      throw fileError(file, `expected ${bytes.length} bytes at ${position} but the file ends after ${done}: truncated`);
    }
    done += bytesRead;
  }
}

const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0;

function parseEntry(name: string, value: unknown, data: number, size: number, file: string): TensorEntry {
  const bad = (message: string): RlsdError => fileError(file, `tensor "${name}": ${message}`);
  if (typeof value !== "object" || value === null) throw bad("expected an object in the header");
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  const width = typeof dtype === "string" ? BYTES[dtype] : undefined;
  if (typeof dtype !== "string" || width === undefined) throw bad(`unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw bad(`expected a shape but found ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw bad(`expected two data_offsets but found ${JSON.stringify(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  const expected = (shape as number[]).reduce((a, b) => a * b, width);
  if (end - begin !== expected) {
    throw bad(`shape [${shape.join(", ")}] of ${dtype} takes ${expected} bytes but data_offsets span ${end - begin}`);
  }
  if (data + end > size) {
    throw bad(`its data ends at byte ${data + end} but the file has ${size}: truncated`);
  }
  return { dtype, shape: shape as number[], start: data + begin, end: data + end };
}

/** The format allows neither holes nor overlaps. */
function checkCover(tensors: ReadonlyMap<string, TensorEntry>, data: number, size: number, file: string): void {
  let at = data;
  for (const [name, t] of [...tensors].sort((a, b) => a[1].start - b[1].start || a[1].end - b[1].end)) {
    if (t.start !== at) throw fileError(file, `tensor "${name}" starts at byte ${t.start} but ${at} was expected`);
    at = t.end;
  }
  if (at !== size) throw fileError(file, `the tensors end at byte ${at} but the file has ${size}`);
}

function parseJson(bytes: Buffer, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw fileError(file, `its header is not JSON: ${messageOf(error)}`);
  }
  if (!isObject(value)) throw fileError(file, "its header is not an object");
  return value;
}

/** Every entry of the header, checked against the file's size; no data is read. */
export async function readHeader(handle: FileHandle, file: string): Promise<SafetensorsHeader> {
  const { size } = await handle.stat();
  if (size < 8) throw fileError(file, `expected a safetensors file but it has ${size} bytes`);
  const lengthBytes = Buffer.alloc(8);
  await readExactly(handle, lengthBytes, 0, file);
  const length = Number(lengthBytes.readBigUInt64LE());
  if (length > MAX_HEADER || length > size - 8) {
    throw fileError(file, `its header claims ${length} bytes but the file has ${size}: damaged or truncated`);
  }
  const headerBytes = Buffer.alloc(length);
  await readExactly(handle, headerBytes, 8, file);
  const { __metadata__: metadata = {}, ...entries } = parseJson(headerBytes, file);
  const tensors = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(entries)) {
    tensors.set(name, parseEntry(name, value, 8 + length, size, file));
  }
  checkCover(tensors, 8 + length, size, file);
  return { tensors, metadata: metadata as Record<string, string> };
}

export interface TensorPlan {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: "F32" | "F16" | "BF16";
}

const planBytes = (t: TensorPlan): number => t.shape.reduce((a, b) => a * b, elementBytes(t.dtype));

/** Total bytes of the tensors' data. */
export const dataBytes = (tensors: readonly TensorPlan[]): number => tensors.reduce((a, t) => a + planBytes(t), 0);

function encodeHeader(tensors: readonly TensorPlan[], metadata: Readonly<Record<string, string>>): Buffer {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const t of tensors) {
    const end = at + planBytes(t);
    header[t.name] = { dtype: t.dtype, shape: t.shape, data_offsets: [at, end] };
    at = end;
  }
  const json = JSON.stringify(header);
  const length = Math.ceil(Buffer.byteLength(json) / 8) * 8;
  const out = Buffer.alloc(8 + length, 0x20);
  out.writeBigUInt64LE(BigInt(length));
  out.write(json, 8);
  return out;
}

/** Writes and flushes a file; `chunks` gives each tensor's bytes in pieces. */
export async function writeSafetensors(
  file: string,
  tensors: readonly TensorPlan[],
  metadata: Readonly<Record<string, string>>,
  chunks: (tensor: TensorPlan) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const handle = await open(file, "wx");
  try {
    await handle.writeFile(encodeHeader(tensors, metadata));
    for (const tensor of tensors) {
      for await (const chunk of chunks(tensor)) await handle.writeFile(chunk);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}
