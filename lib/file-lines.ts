import { RlsdError } from "./errors.js";
import { openRegular } from "./regular-file.js";

export const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** Bytes of a line: more are no text of this program's, and none that a string could hold is longer by much. */
const MOST_BYTES = 2 ** 28;

/** A line without the carriage return that ends it. */
export const withoutReturn = (line: Buffer): Buffer => (line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line);

/**
 * What stands between the line feeds of a file, as bytes.
 *
 * @param what names the file in an error
 */
export async function* linesIn(chunks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let bytes = 0;
  let lines = 0;
  const joined = () => (parts.length === 1 ? parts[0]! : Buffer.concat(parts));
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      parts.push(chunk.subarray(start, end));
      yield joined();
      parts = [];
      bytes = 0;
      lines++;
      start = end + 1;
    }
    if (start === chunk.length) continue;
    parts.push(chunk.subarray(start));
    bytes += chunk.length - start;
    if (bytes > MOST_BYTES) {
      const message = `${what}:${lines + 1}: the line has no end within ${MOST_BYTES / 2 ** 20} MiB: expected one row a line.`;
      throw new RlsdError("ERR_RLSD_DATA", message);
    }
  }
  if (parts.length > 0) yield joined();
}

/** What stands between the line feeds of a file, as bytes: a place in it is the sum of what came before, with a feed for each. */
export async function* rawLines(file: string): AsyncGenerator<Buffer> {
  const handle = await openRegular(file);
  yield* linesIn(handle.createReadStream(), file);
}

/**
 * The lines of a file as bytes, each without the "\n" or "\r\n" that ends it. Nothing else ends one: JSON has U+2028 and
 * U+2029 in its texts as they are, where `readline` of Node 24 ends a line.
 */
export async function* fileLines(file: string): AsyncGenerator<Buffer> {
  for await (const line of rawLines(file)) yield withoutReturn(line);
}
