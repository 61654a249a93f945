import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { child } from "./support/child.js";
import * as made from "./support/parquet-file.js";

const { first, i32, levels, parquetFile, run, struct, varint } = made;

const folder = mkdtempSync(join(tmpdir(), "rlsd-parquet-"));

/** One text, "a", in the dictionary of a column. */
const LETTER = made.dictionary(1, [1, 0, 0, 0, 97]);

/** A page of that text in as many rows, none null, by two runs. */
const letters = (rows: number) => first(rows, made.RLE_DICTIONARY, [...levels(run(rows, 1)), 1, ...run(rows, 0)]);

/** A page of the second version whose indices have no bits. */
const bitless = (header: number) => {
  const said = {
    1: i32(2),
    2: i32(0),
    3: i32(2),
    4: i32(made.RLE_DICTIONARY),
    5: i32(2),
    6: i32(0),
    7: [2, []] as const,
  };
  return made.page(3, { 8: struct(said) }, [...run(2, 1), 0, ...varint(header), 0]);
};

/** Lengths of which each is more than the one before by a number. */
const growing = (count: number, by: number) =>
  [...varint(128), 1, ...varint(count), 0].concat(
    Array.from({ length: Math.ceil((count - 1) / 128) }, () => [...varint(2 * by), 0]).flat(),
  );

const ZSTANDARD = [0x28, 0xb5, 0x2f, 0xfd];

/** A frame without its size: 1000 blocks, each 2 MB of one byte. */
const wide = [
  ...ZSTANDARD,
  0,
  0x58,
  ...Array.from({ length: 1000 }, (_, i) => [i === 999 ? 0xfb : 0xfa, 255, 255, 0]).flat(),
];

/** One of 4 blocks, each of 98047 copies of 65539 bytes or more, of which 128 kB are written. */
const copies = [0, 255, 255, 255, 0x54, 0, 0, 52, 255, 255];
const slow = [
  ...ZSTANDARD,
  0,
  0x50,
  ...Array.from({ length: 4 }, (_, i) => [(copies.length << 3) | 4 | (i === 3 ? 1 : 0), 0, 0, ...copies]).flat(),
];

/** Numbers of codecs, types and converted types. */
const [LZ4, ZSTD, FIXED, DECIMAL] = [5, 6, 7, 5];

const DEEP = Array.from({ length: 20000 }, () => made.element("x", { 3: i32(1), 5: i32(1) }));
const VARIANT = [
  made.element("x", { 3: i32(1), 5: i32(1), 10: struct({ 16: struct({}) }) }),
  made.element("metadata", { 1: i32(6), 3: i32(0) }),
];
const LONG_DECIMAL = [made.element("x", { 1: i32(FIXED), 2: i32(2 ** 20), 3: i32(0), 6: i32(DECIMAL) })];

/** Each took gigabytes, went on without an end or gave what the file does not hold, or would with more of the same. */
const HOSTILE: readonly [string, Buffer, RegExp][] = [
  [
    "a run longer than its page",
    parquetFile({
      pages: [LETTER, first(2, made.RLE_DICTIONARY, [...levels(run(2 ** 29, 1)), 1, ...run(2, 0)])],
      rows: 2,
    }),
    /its column x: a run has 536870912 values where its page has 2 left: damaged/,
  ],
  [
    "a page longer than its column",
    parquetFile({ pages: [LETTER, letters(2 ** 24)], rows: 2 }),
    /its column x: a page has a number of values of 16777216, and at most 2 can be: damaged/,
  ],
  [
    "a column longer than its group",
    parquetFile({ pages: [LETTER, letters(2 ** 24)], rows: 2, values: 2 ** 24 }),
    /its group 1 of rows has 2 rows, and columns of other lengths: damaged/,
  ],
  [
    "2^30 rows in a kilobyte",
    parquetFile({ pages: [LETTER, ...Array.from({ length: 64 }, () => letters(2 ** 24))], rows: 2 ** 30 }),
    /its column x: reading a group of its rows takes \d+\.\d GB of memory or more, and there are \d\.\d for it: write it in smaller groups \(row_group_size\)/,
  ],
  [
    "a page of the second version without its levels",
    parquetFile({
      pages: [
        LETTER,
        made.page(
          3,
          { 8: struct({ 1: i32(2), 2: i32(0), 3: i32(2), 4: i32(made.RLE_DICTIONARY) }) },
          Array<number>(8).fill(0),
        ),
      ],
      rows: 2,
    }),
    /its column x: a page has levels of a length of undefined/,
  ],
  [
    "packed values of no bits",
    parquetFile({ pages: [LETTER, bitless(0xffffffff)], rows: 2 }),
    /its column x: a run has \d+ values where its page has 2 left: damaged/,
  ],
  [
    "LZ4 that goes back",
    parquetFile({ pages: [first(2, 0, [0, 0, 0, 0, 255, 255, 255, 248, 0], 4)], rows: 2, codec: LZ4 }),
    /its column x: a page is no LZ4: damaged/,
  ],
  [
    "Zstandard of 2 GB",
    parquetFile({ pages: [first(2, 0, wide, 2 ** 20)], rows: 2, codec: ZSTD }),
    /its column x: a page is no Zstandard: damaged/,
  ],
  [
    "Zstandard without an end",
    parquetFile({ pages: [first(2, 0, slow, 2 ** 19)], rows: 2, codec: ZSTD }),
    /its column x: a page is decompressed without an end: damaged/,
  ],
  [
    "texts that grow",
    parquetFile({
      pages: [
        first(5000, made.DELTA_BYTE_ARRAY, [...levels(run(5000, 1)), ...growing(5000, 50000), ...growing(5000, 0)]),
      ],
      rows: 5000,
    }),
    /its column x: reading a group of its rows takes \d+\.\d GB/,
  ],
  [
    "a text longer than its page",
    parquetFile({ pages: [first(1, 0, [...levels(run(1, 1)), 9, 0, 0, 0, 97]), letters(0), letters(0)], rows: 1 }),
    /its column x: a text of 9 bytes is longer than its page: damaged/,
  ],
  [
    "a decimal of a megabyte",
    parquetFile({ pages: [first(1, 0, Array<number>(2 ** 20).fill(255))], rows: 1, type: FIXED, schema: LONG_DECIMAL }),
    /its column x: a decimal in it has 1048576 bytes, and at most 64 can be/,
  ],
  [
    "a VARIANT, whose parts may be each other's",
    parquetFile({ pages: [letters(1)], rows: 1, schema: VARIANT, path: ["x", "metadata"] }),
    /its column x.metadata: it is a VARIANT: not read/,
  ],
  [
    "a schema of 20001 elements",
    parquetFile({ pages: [letters(1)], rows: 1, schema: DEEP }),
    /its schema has 20001 elements, and at most 16384 are read/,
  ],
  [
    "rows without columns",
    parquetFile({ pages: [], rows: 2 ** 50, schema: [], path: [] }),
    /its schema has no columns: damaged/,
  ],
  [
    "columns of the same bytes",
    parquetFile({ pages: [made.dictionary(1000, Array<number>(4000).fill(0)), letters(2)], rows: 2, others: 3 }),
    /columns of a group of rows have bytes in common: damaged/,
  ],
  [
    "a number without an end",
    made.footed([], [0x16, ...Array<number>(2 ** 20).fill(255)]),
    /a number in it has more than 10 bytes: damaged/,
  ],
  [
    "lists in lists",
    made.footed([], [0x19, ...Array.from({ length: 40 }, () => [0xf9, 255, 255, 127]).flat()]),
    /a list of 2097151 is longer than the file: damaged/,
  ],
  [
    "structures in structures",
    made.footed([], Array<number>(2 ** 16).fill(0x1c)),
    /its structures are more than 32 deep: damaged/,
  ],
];

test("a Parquet file that says more than it holds is an error, in bounded time and memory", async () => {
  const whole: Buffer = parquetFile({ pages: [LETTER, letters(3)], rows: 3 });
  const files = [["whole", whole, /./] as const, ...HOSTILE].map(([key, bytes]) => {
    const file = join(folder, `${key.replaceAll(/\W/g, "-")}.parquet`);
    writeFileSync(file, bytes);
    return file;
  });
  const heap = { NODE_OPTIONS: "--max-old-space-size=512" };
  const [rows, ...told] = (await child("parquet-child.ts", heap, ...files)) as [number, ...[string, string][]];
  expect(rows).toBe(3);
  expect(told).toEqual(HOSTILE.map(([, , message]) => ["ERR_RLSD_DATA", expect.stringMatching(message)]));
}, 60_000);
