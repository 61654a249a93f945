import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { RlsdError } from "../../errors.js";
import { readFault } from "../../read-fault.js";

const fail = (message: string, cause?: unknown): never => {
  throw new RlsdError("ERR_RLSD_DATA", message, { cause });
};

const isCompressed = (file: string): boolean => file.toLowerCase().endsWith(".gz");

/** The two bytes that gzip data begin with. */
const GZIP = Buffer.of(0x1f, 0x8b);

/** That a file can be opened, is one, and is compressed where its name says so and not elsewhere. */
export async function checkFile(file: string): Promise<void> {
  const first = Buffer.alloc(GZIP.length);
  let read = 0;
  try {
    const found = await stat(file);
    if (found.isDirectory()) throw new Error("it is a folder");
    // Data are read twice, and a pipe that nobody writes to is waited for at its opening.
    if (!found.isFile()) throw new Error("it is no file, but a pipe or a device");
    const handle = await open(file, "r");
    try {
      read = (await handle.read(first, 0, first.length, 0)).bytesRead;
    } finally {
      await handle.close();
    }
  } catch (error) {
    fail(`cannot read ${file}: ${readFault(file, error)}.`, error);
  }
  const gzip = read === GZIP.length && first.equals(GZIP);
  if (gzip && !isCompressed(file)) fail(`${file} is compressed by gzip, but its name does not end in .gz: rename it.`);
  if (!gzip && isCompressed(file)) fail(`${file} is not compressed by gzip, as its name says: rename or compress it.`);
}

/** What the words of zlib's errors come to. */
const FAULTS: Readonly<Record<string, string>> = {
  Z_BUF_ERROR: "it ends in the middle: a copy or a download that was cut off",
  Z_DATA_ERROR: "its data are damaged",
};

/** The bytes of a file, unpacked where it is a `.gz`; memory holds one piece of them. */
export async function* fileBytes(file: string): AsyncGenerator<Buffer> {
  const source = createReadStream(file);
  const unpacked = isCompressed(file) ? createGunzip() : undefined;
  source.on("error", (error) => unpacked?.destroy(error));
  try {
    yield* unpacked === undefined ? source : source.pipe(unpacked);
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    const told = Object.hasOwn(FAULTS, code) ? `${FAULTS[code]} (${message}). Make it anew, or leave it out.` : message;
    fail(`cannot read ${file}: ${told}`, error);
  } finally {
    source.destroy();
  }
}

/** A file that is read as one text holds no more: V8 has no longer strings. */
const MOST_BYTES = 2 ** 29 - 25;

/** All bytes of a file that is read as one. */
export async function wholeFile(file: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of fileBytes(file)) {
    parts.push(part);
    bytes += part.length;
    if (bytes > MOST_BYTES)
      fail(`${file} has more than 512 MiB, which is too much for one JSON text: make it JSONL, one row a line.`);
  }
  return Buffer.concat(parts);
}
