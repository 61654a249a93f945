import { createReadStream } from "node:fs";

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

function joined(parts: readonly Buffer[]): Buffer {
  const line = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  return line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
}

/**
 * The lines of a file as bytes, each without the "\n" or "\r\n" that ends it. Nothing else ends one: JSON has U+2028 and
 * U+2029 in its texts as they are, where `readline` of Node 24 ends a line.
 */
export async function* fileLines(file: string): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      parts.push(chunk.subarray(start, end));
      yield joined(parts);
      parts = [];
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield joined(parts);
}
