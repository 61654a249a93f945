// Parquet files of one column, as a writer that has something in mind would make them.

/** A value in Thrift's compact protocol: its type, and its bytes. */
export type Thrift = readonly [type: number, bytes: readonly number[]];

export function varint(value: number | bigint): number[] {
  const bytes: number[] = [];
  let left = BigInt(value);
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  return [...bytes, Number(left)];
}

/** Of 32 bits or 64: both are read as one. */
export const i32 = (value: number): Thrift => [5, varint(value < 0 ? -2 * value - 1 : 2 * value)];
export const i64 = (value: number): Thrift => [6, varint(BigInt(value) * 2n)];
export const text = (value: string): Thrift => [8, [...varint(Buffer.byteLength(value)), ...Buffer.from(value)]];
export const list = (type: number, items: readonly (readonly number[])[]): Thrift => [
  9,
  [0xf0 | type, ...varint(items.length), ...items.flat()],
];

/** Fields by their numbers. */
export function struct(fields: Readonly<Record<number, Thrift>>): Thrift {
  const parts = Object.entries(fields).map(([key, [type, value]], i, all) => {
    const step = Number(key) - Number(all[i - 1]?.[0] ?? 0);
    return [...(step < 16 ? [(step << 4) | type] : [type, ...varint(2 * Number(key))]), ...value];
  });
  return [12, [...parts.flat(), 0]];
}

/** A page: its header's fields besides its sizes, and its bytes as they are compressed. */
export function page(kind: number, said: Readonly<Record<number, Thrift>>, bytes: readonly number[], size?: number) {
  const header = struct({ 1: i32(kind), 2: i32(size ?? bytes.length), 3: i32(bytes.length), ...said });
  return [...header[1], ...bytes];
}

/** Numbers of encodings. */
export const [PLAIN, DELTA_BYTE_ARRAY, RLE_DICTIONARY] = [0, 7, 8];

export const first = (values: number, encoding: number, bytes: readonly number[], size?: number) =>
  page(0, { 5: struct({ 1: i32(values), 2: i32(encoding), 3: i32(3), 4: i32(3) }) }, bytes, size);

export const dictionary = (values: number, bytes: readonly number[]) =>
  page(2, { 7: struct({ 1: i32(values), 2: i32(PLAIN) }) }, bytes);

/** Levels of definition, or of repetition, of a page of the first version: runs, after their length. */
export const levels = (...runs: readonly number[][]) => [runs.flat().length, 0, 0, 0, ...runs.flat()];

/** A run of one value that takes a byte. */
export const run = (length: number, value: number) => [...varint(length * 2), value];

export interface Column {
  readonly pages: readonly (readonly number[])[];
  readonly rows: number;
  readonly values?: number;
  /** The number of the type: 6 is a text, 1 a number of 32 bits. */
  readonly type?: number;
  /** 0: not compressed. */
  readonly codec?: number;
  /** Elements of the schema after its root. */
  readonly schema?: readonly Thrift[];
  readonly path?: readonly string[];
  /** How many columns of other names are the same bytes. */
  readonly others?: number;
}

/** An element of a schema. */
export const element = (name: string, fields: Readonly<Record<number, Thrift>>): Thrift =>
  struct({ ...fields, 4: text(name) });

/** With these bytes between the mark of the kind and the footer. */
export function footed(bytes: readonly number[], footer: readonly number[]): Buffer {
  const ending = Buffer.from([0, 0, 0, 0, ...Buffer.from("PAR1")]);
  ending.writeUInt32LE(footer.length);
  return Buffer.concat([Buffer.from("PAR1"), Buffer.from(bytes), Buffer.from(footer), ending]);
}

/** A file of a column that may be null, or of what is given. */
export function parquetFile(column: Column): Buffer {
  const { pages, rows, values = rows, type = 6, codec = 0, path = ["x"], others = 0 } = column;
  const same = Array.from({ length: others }, (_, i) => `x${i}`);
  const schema = column.schema ?? ["x", ...same].map((name) => element(name, { 1: i32(type), 3: i32(1) }));
  const bytes = pages.flat();
  const metas = [path, ...same.map((name) => [name])].map((names) =>
    struct({
      1: i32(type),
      2: list(5, []),
      3: list(
        8,
        names.map((name) => text(name)[1]),
      ),
      4: i32(codec),
      5: i64(values),
      6: i64(bytes.length),
      7: i64(bytes.length),
      9: i64(4),
    }),
  );
  const columns = metas.map((meta) => struct({ 2: i64(4), 3: meta })[1]);
  const group = struct({ 1: list(12, columns), 2: i64(bytes.length), 3: i64(rows) });
  const root = element("schema", schema.length > 0 ? { 5: i32(others + 1) } : {});
  const footer = struct({
    1: i32(1),
    2: list(12, [root[1], ...schema.map(([, one]) => one)]),
    3: i64(rows),
    4: list(12, [group[1]]),
  });
  return footed(bytes, footer[1]);
}
