import type { FileHandle } from "node:fs/promises";
import type { AsyncBuffer, ColumnMetaData, Compressors, FileMetaData, RowGroup, SchemaTree } from "hyparquet";
import { show } from "../../check.js";
import { messageOf, RlsdError } from "../../errors.js";
import { isPlain } from "../../exact-json.js";
import { openRegular } from "../../regular-file.js";
import { Memory } from "./parquet-memory.js";
import { checkThrift } from "./parquet-thrift.js";

type Columns = Readonly<Record<string, unknown>>;

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

/** Structures of the footer become objects of this many bytes, or fewer. */
const STRUCTURE = 400;

/** Elements of a schema: the time that the library takes grows with their square. */
const MOST_ELEMENTS = 2 ** 14;

async function metadataOf(file: Slices): Promise<FileMetaData> {
  const { parquetMetadata } = await import("hyparquet");
  const ending = new DataView(await file.slice(Math.max(0, file.byteLength - 8)));
  const length = ending.byteLength === 8 ? ending.getUint32(0, true) : 0;
  const bytes = await file.slice(Math.max(0, file.byteLength - 8 - length));
  if (length > 0 && bytes.byteLength === length + 8) {
    new Memory().need(STRUCTURE * checkThrift(new DataView(bytes, 0, length), 0));
  }
  // Shapes of maps are no rows of ours, and the library looks for them for ever in a damaged schema.
  return parquetMetadata(bytes, { geoparquet: false });
}

/** From the root to a column of values. */
type Path = readonly SchemaTree[];

/** In the order of a group's columns. */
const pathsOf = (tree: SchemaTree, above: Path = []): Path[] =>
  tree.children.length === 0 ? [[...above, tree]] : tree.children.flatMap((child) => pathsOf(child, [...above, tree]));

/**
 * That every group of rows has the columns of the schema, in its order, and as many rows as the file says. Where it has others,
 * the library ends in the middle of its work, and what goes on fails where nobody hears it: that ends the process.
 */
function checkGroups({ row_groups: groups, num_rows: total }: FileMetaData, all: readonly Path[]): void {
  const leaves = all.map((path) => path.at(-1)!.path.join("."));
  const isRepeated = all.map((path) => path.some(({ element }) => element.repetition_type === "REPEATED"));
  let rows = 0n;
  for (const [i, { columns, num_rows: count }] of groups.entries()) {
    const fail = (what: string) => new Error(`its group ${i + 1} of rows has ${what}: damaged`);
    const paths = columns.map(({ meta_data: meta }) => meta?.path_in_schema?.join("."));
    if (paths.length !== leaves.length) throw fail(`${paths.length} columns, and its schema ${leaves.length}`);
    const other = paths.findIndex((path, k) => path !== leaves[k]);
    if (other >= 0) throw fail(`a column ${show(paths[other])} where its schema has ${show(leaves[other])}`);
    const isOther = columns.some(({ meta_data: meta }, k) => {
      return !(meta!.num_values >= count && (isRepeated[k] || meta!.num_values === count));
    });
    if (!(count >= 0n) || isOther) {
      throw fail(`${count} rows, and columns of other lengths`);
    }
    rows += count;
  }
  if (rows !== total) throw new Error(`its groups have ${rows} rows, and it says ${total}: damaged`);
}

/** Where the library finds the bytes of each column, so far apart that it asks for one at a time. */
const APART = 2 ** 40;

/** A group of rows as the library reads it: columns whose bytes are here, and each with a decompressor of its own. */
interface Group {
  readonly file: AsyncBuffer;
  readonly row: RowGroup;
  readonly compressors: Compressors;
}

async function openGroup(file: Slices, row: RowGroup, paths: readonly Path[]): Promise<Group> {
  const { ColumnPages } = await import("./parquet-pages.js");
  const metas = row.columns.map(({ meta_data: meta }) => meta!);
  const chunks = await Promise.all(
    metas.map(({ dictionary_page_offset: dictionary, data_page_offset: data, total_compressed_size: size }) => {
      const start = dictionary || data;
      return file.slice(Number(start), Number(start + size));
    }),
  );
  if (chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0) > file.byteLength) {
    throw new Error("columns of a group of rows have bytes in common: damaged");
  }
  const memory = new Memory();
  const compressors: Record<string, () => Uint8Array> = {};
  const columns = row.columns.map((column, i) => {
    const { dictionary_page_offset: _, ...meta } = metas[i]!;
    compressors[i] = new ColumnPages(chunks[i]!, metas[i]!, paths[i]!, Number(row.num_rows), memory).decompress;
    const codec = String(i) as ColumnMetaData["codec"];
    return { ...column, meta_data: { ...meta, codec, data_page_offset: BigInt(i * APART) } };
  });
  return {
    file: { byteLength: chunks.length * APART, slice: (start) => chunks[start / APART]! },
    row: { ...row, columns },
    compressors,
  };
}

/** Values by column and row of one group. */
async function readGroup(file: Slices, metadata: FileMetaData, row: RowGroup, paths: readonly Path[]) {
  const { parquetRead } = await import("hyparquet");
  const group = await openGroup(file, row, paths);
  const count = Number(row.num_rows);
  const columns = new Map<string, unknown[]>(paths[0]![0]!.children.map(({ element }) => [element.name, []]));
  await parquetRead({
    file: group.file,
    metadata: { ...metadata, row_groups: [group.row], num_rows: row.num_rows },
    compressors: group.compressors,
    onChunk: ({ columnName, columnData }) => {
      const values = columns.get(columnName)!;
      for (const value of columnData) values.push(value);
    },
  });
  for (const [name, values] of columns) {
    if (values.length === count) continue;
    throw new Error(`its column ${name} has ${values.length} values for ${count} rows: damaged`);
  }
  if (columns.size === 0) throw new Error("its schema has no columns: damaged");
  return [...columns];
}

/** One group of rows at a time: memory holds a group, not the file. */
async function* rowsOf(file: Slices): AsyncGenerator<Columns> {
  const { parquetSchema } = await import("hyparquet");
  const metadata = await metadataOf(file);
  if (metadata.schema.length > MOST_ELEMENTS) {
    throw new Error(`its schema has ${metadata.schema.length} elements, and at most ${MOST_ELEMENTS} are read`);
  }
  const paths = pathsOf(parquetSchema(metadata));
  checkGroups(metadata, paths);
  for (const group of metadata.row_groups) {
    if (group.num_rows === 0n) continue;
    const columns = await readGroup(file, metadata, group, paths);
    for (let row = 0; row < Number(group.num_rows); row++) {
      yield Object.fromEntries(columns.map(([name, values]) => [name, plain(values[row])]));
    }
  }
}

/**
 * The rows of a Parquet file.
 *
 * @throws RlsdError ERR_RLSD_DATA for a file that is none, or damaged
 */
export async function* parquetRows(file: string): AsyncGenerator<Columns> {
  const told = (error: unknown) => new RlsdError("ERR_RLSD_DATA", `${file}: ${messageOf(error)}`, { cause: error });
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
