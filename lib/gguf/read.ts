import type { FileHandle } from "node:fs/promises";
import { messageOf, RlsdError } from "../errors.js";
import { openRegular } from "../regular-file.js";
import { Cursor, TooShort } from "./cursor.js";
import { dequantize } from "./dequantize.js";
import { ALIGNMENT, aligned, bytesOf, MAGIC, OTHER_TYPES, TENSOR_TYPES, type TensorType } from "./types.js";

/** A value of metadata, as it was found. */
export type Found = string | number | boolean | readonly (string | number | boolean)[];

/** One tensor of a file; start and end are bytes of the file. */
export interface FoundTensor {
  readonly type: TensorType;
  /** Rows, then columns. */
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, Found>;
  readonly tensors: ReadonlyMap<string, FoundTensor>;
}

/** Bytes that are read at first; the header of most files. */
const FIRST_BYTES = 1 << 23;
/** Far beyond any file's header: a vocabulary of 262,144 tokens with its merges takes 20 MB. */
const MOST_BYTES = 1 << 28;
const MOST_DIMENSIONS = 4;
const MOST_ALIGNMENT = 65536;
/** Older files of ggml's begin so. */
const OLDER = ["lmgg", "fmgg", "tjgg", "algg"];

const fileFault = (file: string, message: string): RlsdError =>
  new RlsdError("ERR_RLSD_MODEL_FILE", `${file}: ${message}`);

function checkVersion(version: number, fail: (message: string) => RlsdError): void {
  if (version === 2 || version === 3) return;
  const swapped = version % 65536 === 0 && version > 0;
  const what = swapped ? "is big-endian" : `is of version ${version}`;
  throw fail(`${what}: expected a little-endian GGUF file of version 2 or 3; llama.cpp's converter writes such`);
}

interface Info {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: TensorType;
  readonly offset: number;
}

function readInfo(cursor: Cursor, file: string): Info {
  const name = cursor.text();
  const fail = (message: string) => fileFault(file, `tensor ${JSON.stringify(name)}: ${message}`);
  const dimensions = cursor.number("u32");
  if (dimensions < 1 || dimensions > MOST_DIMENSIONS) throw fail(`expected 1 to 4 dimensions but found ${dimensions}`);
  const shape = Array.from({ length: dimensions }, () => cursor.number("u64")).reverse();
  const count = shape.reduce((a, b) => a * b, 1);
  if (!Number.isSafeInteger(count) || count < 1) throw fail(`expected a shape but found [${shape.join(", ")}]`);
  const code = cursor.number("u32");
  const type = TENSOR_TYPES.get(code);
  if (type === undefined) {
    const known = [...TENSOR_TYPES.values()].map((one) => one.name).join(", ");
    const found = OTHER_TYPES.get(code) ?? `number ${code}`;
    const message = `${file}: tensor ${JSON.stringify(name)} is of type ${found}, which is not supported: expected one of ${known}`;
    throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", message);
  }
  const columns = shape.at(-1) as number;
  if (columns % type.blockSize !== 0) {
    throw fail(`${columns} columns are no whole blocks of ${type.name}, which has ${type.blockSize} numbers in each`);
  }
  return { name, shape, type, offset: cursor.number("u64") };
}

function alignmentOf(metadata: ReadonlyMap<string, Found>, file: string): number {
  const alignment = metadata.get("general.alignment") ?? ALIGNMENT;
  const isPower = typeof alignment === "number" && alignment >= 1 && Number.isInteger(Math.log2(alignment));
  if (isPower && alignment <= MOST_ALIGNMENT) return alignment;
  throw fileFault(
    file,
    `expected a power of two of at most ${MOST_ALIGNMENT} for general.alignment but found ${alignment}`,
  );
}

/** Where each tensor lies, all of it in the file. */
function place(infos: readonly Info[], data: number, alignment: number, size: number, file: string) {
  const tensors = new Map<string, FoundTensor>();
  for (const { name, shape, type, offset } of infos) {
    const fail = (message: string) => fileFault(file, `tensor ${JSON.stringify(name)} ${message}`);
    if (tensors.has(name)) throw fail("is there twice");
    if (offset % alignment !== 0) throw fail(`begins at ${offset}: expected a multiple of ${alignment}`);
    const start = data + offset;
    const end =
      start +
      bytesOf(
        type,
        shape.reduce((a, b) => a * b, 1),
      );
    if (!Number.isSafeInteger(end) || end > size) {
      throw fail(`ends at byte ${end} but the file has ${size}: truncated`);
    }
    tensors.set(name, { type, shape, start, end });
  }
  return tensors;
}

/** Of the first bytes of a file of `size` bytes; throws TooShort where there must be more. */
function parseHeader(bytes: Buffer, size: number, file: string): GgufHeader {
  const fail = (message: string) => fileFault(file, message);
  const magic = bytes.toString("latin1", 0, 4);
  if (magic !== MAGIC) {
    const found = OLDER.includes(magic) ? "is of a format before GGUF" : "is no GGUF file";
    throw fail(`${found}: expected it to begin with "GGUF"`);
  }
  const cursor = new Cursor(bytes, size, fail);
  cursor.skip(4);
  checkVersion(cursor.number("u32"), fail);
  // The least that a tensor's entry and a value of metadata take.
  const tensorCount = cursor.count("tensors", 8 + 4 + 8 + 4 + 8);
  const valueCount = cursor.count("values of metadata", 8 + 4 + 1, size - tensorCount);
  const metadata = new Map<string, Found>();
  for (let i = 0; i < valueCount; i++) {
    const key = cursor.text();
    if (metadata.has(key)) throw fail(`${JSON.stringify(key)} is there twice`);
    metadata.set(key, cursor.value(key));
  }
  const parts = metadata.get("split.count") ?? 1;
  if (parts !== 1) throw fail(`is one of ${parts} files: expected a whole one, as llama-gguf-split --merge makes it`);
  const alignment = alignmentOf(metadata, file);
  const infos: Info[] = [];
  for (let i = 0; i < tensorCount; i++) infos.push(readInfo(cursor, file));
  return { metadata, tensors: place(infos, aligned(cursor.at, alignment), alignment, size, file) };
}

async function readAt(handle: FileHandle, length: number, from = 0): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, from + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

async function parseFrom(handle: FileHandle, size: number, file: string): Promise<GgufHeader> {
  for (let length = Math.min(FIRST_BYTES, size); ; length = Math.min(4 * length, size)) {
    const bytes = await readAt(handle, length);
    try {
      return parseHeader(bytes, size, file);
    } catch (error) {
      if (!(error instanceof TooShort)) throw error;
      if (length >= size) throw fileFault(file, `its header ends at byte ${size} before it is whole: truncated`);
      if (length >= MOST_BYTES) throw fileFault(file, `its header has more than ${MOST_BYTES} bytes: damaged`);
    }
  }
}

/** The last file's, as long as somebody uses it: a model's shape, tokenizer and weights are asked for one after another. */
let last: { readonly key: string; readonly header: WeakRef<GgufHeader> } | undefined;

async function readFrom(handle: FileHandle, file: string): Promise<GgufHeader> {
  const found = await handle.stat();
  const key = [file, found.dev, found.ino, found.size, found.mtimeMs, found.ctimeMs].join();
  const known = last?.key === key ? last.header.deref() : undefined;
  if (known !== undefined) return known;
  const header = await parseFrom(handle, found.size, file);
  last = { key, header: new WeakRef(header) };
  return header;
}

async function opened<T>(file: string, body: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await openRegular(file).catch((error: unknown) => {
    throw fileFault(file, `could not be opened: ${messageOf(error)}`);
  });
  try {
    return await body(handle);
  } catch (error) {
    if (error instanceof RlsdError) throw error;
    throw fileFault(file, `could not be read: ${messageOf(error)}`);
  } finally {
    await handle.close();
  }
}

/**
 * Metadata of a GGUF file and where its tensors lie; every count, length and offset is checked against the file's size before
 * memory is taken for it, and no tensor is read.
 *
 * @throws RlsdError ERR_RLSD_MODEL_FILE for a file that is none, damaged, truncated or of another version,
 *   ERR_RLSD_UNSUPPORTED_MODEL for a tensor of a type that is not read
 */
export const readGguf = (file: string): Promise<GgufHeader> => opened(file, (handle) => readFrom(handle, file));

/** The numbers of one small tensor. */
export const readTensor = (file: string, { type, start, end }: FoundTensor): Promise<Float32Array> =>
  opened(file, async (handle) => {
    const bytes = await readAt(handle, end - start, start);
    if (bytes.length < end - start) throw fileFault(file, `ends before byte ${end}: truncated`);
    return dequantize(bytes, type);
  });
