import type { FileHandle } from "node:fs/promises";
import type { AsyncBuffer, FileMetaData, SchemaTree } from "hyparquet";
import { show } from "../../check.js";
import { RlsdError } from "../../errors.js";
import { openRegular } from "../../regular-file.js";

type Columns = Readonly<Record<string, unknown>>;

const isPlain = (value: unknown): value is Columns =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/**
 * Parquet's 64-bit integers come as BigInt: numbers where that is exact. Dates become ISO text. A field of an object
 * inside a column cannot be missing there, only null: such as arguments of other rows' tool calls.
 */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (!isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]) => ((inner ?? null) === null ? [] : [[name, plain(inner)]])),
  );
}

/** Bytes of an open file, for a library that has several reads under way at once: none of them throws at once. */
class Slices implements AsyncBuffer {
  readonly #reads = new Set<Promise<unknown>>();

  constructor(
    private readonly handle: FileHandle,
    readonly byteLength: number,
  ) {}

  slice(start: number, end = this.byteLength): Promise<ArrayBuffer> {
    const read = this.#read(start, end);
    const settled = read.then(
      () => {},
      () => {},
    );
    this.#reads.add(settled);
    void settled.then(() => this.#reads.delete(settled));
    return read;
  }

  async #read(start: number, end: number): Promise<ArrayBuffer> {
    if (!(start >= 0 && end >= start && end <= this.byteLength)) {
      throw new Error(`it names bytes ${start} to ${end}, but it has ${this.byteLength}`);
    }
    const bytes = new Uint8Array(end - start);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.handle.read(bytes, done, bytes.length - done, start + done);
      if (bytesRead === 0) throw new Error(`it ended at byte ${start + done} while it was read`);
      done += bytesRead;
    }
    return bytes.buffer;
  }

  /** After all reads that are under way. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#reads);
    await this.handle.close();
  }
}

const leavesOf = ({ path, children }: SchemaTree): string[] =>
  children.length === 0 ? [path.join(".")] : children.flatMap(leavesOf);

/**
 * That every group of rows has the columns of the schema, in its order, and as many rows as the file says. Where it has others,
 * the library ends in the middle of its work, and what goes on fails where nobody hears it: that ends the process.
 */
function checkGroups({ row_groups: groups, num_rows: total }: FileMetaData, schema: SchemaTree): void {
  const leaves = leavesOf(schema);
  let rows = 0n;
  for (const [i, { columns, num_rows: count }] of groups.entries()) {
    const fail = (what: string) => new Error(`its group ${i + 1} of rows has ${what}: damaged`);
    const paths = columns.map(({ meta_data: meta }) => meta?.path_in_schema?.join("."));
    if (paths.length !== leaves.length) throw fail(`${paths.length} columns, and its schema ${leaves.length}`);
    const other = paths.findIndex((path, k) => path !== leaves[k]);
    if (other >= 0) throw fail(`a column ${show(paths[other])} where its schema has ${show(leaves[other])}`);
    if (!(count >= 0n) || columns.some(({ meta_data: meta }) => !(meta!.num_values >= count))) {
      throw fail(`${count} rows, and columns of other lengths`);
    }
    rows += count;
  }
  if (rows !== total) throw new Error(`its groups have ${rows} rows, and it says ${total}: damaged`);
}

/** Values by column and row of one group. */
async function readGroup(file: Slices, metadata: FileMetaData, start: number, count: number) {
  const { parquetRead } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const columns = new Map<string, unknown[]>();
  await parquetRead({
    file,
    metadata,
    compressors,
    rowStart: start,
    rowEnd: start + count,
    onChunk: ({ columnName, columnData }) => {
      const values = columns.get(columnName) ?? [];
      for (const value of columnData) values.push(value);
      columns.set(columnName, values);
    },
  });
  for (const [name, values] of columns) {
    if (values.length === count) continue;
    throw new Error(`its column ${name} has ${values.length} values for ${count} rows: damaged`);
  }
  return [...columns];
}

/** One group of rows at a time: memory holds a group, not the file. */
async function* rowsOf(file: Slices): AsyncGenerator<Columns> {
  const { parquetMetadataAsync, parquetSchema } = await import("hyparquet");
  // Shapes of maps are no rows of ours, and the library looks for them for ever in a damaged schema.
  const metadata = await parquetMetadataAsync(file, { geoparquet: false });
  checkGroups(metadata, parquetSchema(metadata));
  let start = 0;
  for (const group of metadata.row_groups) {
    const count = Number(group.num_rows);
    const columns = await readGroup(file, metadata, start, count);
    for (let row = 0; row < count; row++) {
      yield Object.fromEntries(columns.map(([name, values]) => [name, plain(values[row])]));
    }
    start += count;
  }
}

/**
 * The rows of a Parquet file.
 *
 * @throws RlsdError ERR_RLSD_DATA for a file that is none, or damaged
 */
export async function* parquetRows(file: string): AsyncGenerator<Columns> {
  const told = (error: unknown) =>
    new RlsdError("ERR_RLSD_DATA", `${file}: ${error instanceof Error ? error.message : error}`, { cause: error });
  const handle = await openRegular(file).catch((error: unknown) => {
    throw told(error);
  });
  const slices = new Slices(handle, (await handle.stat()).size);
  const rows = rowsOf(slices);
  try {
    for (;;) {
      const next = await rows.next().catch((error: unknown) => {
        throw told(error);
      });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await slices.close();
  }
}
