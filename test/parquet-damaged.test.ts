import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { child } from "./support/child.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-parquet-"));
const whole = readFileSync(join(__dirname, "fixtures/data/rows-snappy.parquet"));
const name = (key: string) => join(folder, `${key.replaceAll(/\W/g, "-")}.parquet`);

/** Bytes by their place, from the end where it is below 0. */
type Patch = Readonly<Record<number, number>>;

function patched(key: string, patch: Patch): string {
  const bytes = Buffer.from(whole);
  for (const [place, byte] of Object.entries(patch))
    bytes[Number(place) + (Number(place) < 0 ? bytes.length : 0)] = byte;
  writeFileSync(name(key), bytes);
  return name(key);
}

const DAMAGED: readonly [string, Patch, RegExp][] = [
  // Each was read as if it were whole, for ever, or ended the process by a rejection that nobody heard.
  ["a schema whose element has -3 in it", { [-2807]: 5 }, /group 1 of rows has 6 columns, and its schema 5/],
  ["a schema of nothing", { [-2862]: 55 }, /group 1 of rows has 6 columns, and its schema 1/],
  [
    "a column of another name",
    { [-2662]: 113 },
    /has a column "qrompt.list.element.role" where its schema has "prompt.list.element.role"/,
  ],
  ["a row too many", { [-2680]: 12 }, /^its groups have 5 rows, and it says 6: damaged/],
  ["rows of no number", { [-2053]: 6 }, /group 1 of rows has undefined rows, and columns of other lengths/],
  ["a group of -3 rows", { [-2049]: 5 }, /group 1 of rows has -3 rows, and columns of other lengths/],
  ["a column of other rows", { [-2638]: 5 }, /group 1 of rows has 2 rows, and columns of other lengths/],
  ["bytes before the file", { [-2625]: 9 }, /^it names bytes -5 to \d+, but it has 4415/],
  ["bytes nowhere", { [-2416]: 6 }, /^it names bytes NaN to NaN, but it has 4415/],
  ["a column whose values are missing", { [-2524]: 0 }, /^its column prompt has 0 values for 2 rows: damaged/],
  ["two damages, of which one is found later", { [-2409]: 249, 4: 255 }, /./],
];

test("a damaged Parquet file is an error, of which the process hears once", async () => {
  const files = [patched("whole", {}), ...DAMAGED.map(([key, patch]) => patched(key, patch))];
  const [rows, ...told] = (await child("parquet-child.ts", {}, ...files)) as [number, ...[string, string][]];
  expect(rows).toBe(5);
  expect(told).toEqual(DAMAGED.map(([, , message]) => ["ERR_RLSD_DATA", expect.stringMatching(message)]));
});

test("a Parquet file that ends early, wherever it ends, is an error too", async () => {
  const files = Array.from({ length: 40 }, (_, i) => {
    writeFileSync(name(`cut ${i}`), whole.subarray(0, Math.floor((whole.length * i) / 40)));
    return name(`cut ${i}`);
  });
  const told = await child("parquet-child.ts", {}, ...files);
  expect(told).toEqual(files.map(() => ["ERR_RLSD_DATA", expect.any(String)]));
});
