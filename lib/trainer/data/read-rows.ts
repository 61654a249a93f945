import { extname } from "node:path";
import { isObject } from "../../check.js";
import { messageOf, RlsdError } from "../../errors.js";
import { parseExact, withTexts } from "../../exact-json.js";
import { linesIn, withoutReturn } from "../../file-lines.js";
import { NOT_UTF8, utf8Text } from "../../utf8.js";
import { CsvRecords, type Separator } from "./csv.js";
import { checkFile, fileBytes, wholeFile } from "./file-bytes.js";
import { parquetRows } from "./parquet.js";

export type Row = Readonly<Record<string, unknown>>;

/** A row and where it stands, as `file:line` (or `file:row` for files without lines). */
export interface PlacedRow {
  readonly where: string;
  /** A row that could not be read has a problem in place of columns. An integer beyond 2^53 is a text of its digits. */
  readonly row?: Row;
  /** The row with those as BigInt, where it has any: for calls of tools, which are told as they are. */
  readonly exact?: Row;
  readonly problem?: string;
}

const typeName = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;

function placed(where: string, value: unknown): PlacedRow {
  if (isObject(value)) {
    const row = withTexts(value);
    return row === value ? { where, row } : { where, row, exact: value };
  }
  return { where, problem: `expected an object but found ${typeName(value)}` };
}

async function* readJsonLines(file: string): AsyncGenerator<PlacedRow> {
  let number = 0;
  for await (const line of linesIn(fileBytes(file), file)) {
    const where = `${file}:${++number}`;
    const text = utf8Text(withoutReturn(line));
    if (text === undefined) {
      yield { where, problem: NOT_UTF8 };
      continue;
    }
    if (text.trim() === "") continue;
    let value: unknown;
    try {
      value = parseExact(text);
    } catch (error) {
      yield { where, problem: `not JSON: ${messageOf(error)}` };
      continue;
    }
    yield placed(where, value);
  }
}

async function* readJson(file: string): AsyncGenerator<PlacedRow> {
  const text = utf8Text(await wholeFile(file));
  if (text === undefined) throw new RlsdError("ERR_RLSD_DATA", `${file} is ${NOT_UTF8}.`);
  let value: unknown;
  try {
    value = parseExact(text);
  } catch (error) {
    const why = messageOf(error);
    throw new RlsdError("ERR_RLSD_DATA", `${file} is not JSON: ${why}. One object a line belongs in a .jsonl file.`);
  }
  if (!Array.isArray(value)) {
    const found = isObject(value) ? `an object (${Object.keys(value).slice(0, 8).join(", ")})` : typeName(value);
    throw new RlsdError("ERR_RLSD_DATA", `${file}: expected a list of objects but found ${found}.`);
  }
  for (const [i, row] of value.entries()) yield placed(`${file}:${i + 1}`, row);
}

async function* readParquet(file: string): AsyncGenerator<PlacedRow> {
  let number = 0;
  for await (const row of parquetRows(file)) yield placed(`${file}:${++number}`, row);
}

/** What separates fields, and how a file with it is read. */
const SEPARATORS = [
  { separator: ",", named: "comma", several: "commas", mend: "name it .csv" },
  { separator: "\t", named: "tab", several: "tabs", mend: "name it .tsv" },
  {
    separator: ";",
    named: "semicolon",
    several: "semicolons",
    mend: "save it with commas, or with tabs as .tsv",
  },
] as const;

const nameOf = (separator: Separator): string => SEPARATORS.find((one) => one.separator === separator)!.named;

/** Columns by the names of a header, which are all different. */
function headerOf(file: string, names: readonly string[], separator: Separator): readonly string[] {
  const other = SEPARATORS.find((one) => names.length === 1 && names[0]!.includes(one.separator));
  if (other !== undefined && other.separator !== separator) {
    const message = `${file}: its first line has no ${nameOf(separator)}, but ${other.several}, and looks as if these separated its columns: ${other.mend}.`;
    throw new RlsdError("ERR_RLSD_DATA", message);
  }
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice === undefined) return names;
  throw new RlsdError(
    "ERR_RLSD_DATA",
    `${file}: its first line names two columns "${twice}": expected different names.`,
  );
}

function csvRow(names: readonly string[], fields: readonly string[], separator: Separator): Row | string {
  if (fields.length === names.length) return Object.fromEntries(names.map((name, i) => [name, fields[i]!]));
  return `it has ${fields.length} fields, but the first line names ${names.length} columns: a field with a ${nameOf(separator)} in it stands in quotes`;
}

/** Characters of one field: where a quote is forgotten, it takes in all that follows. */
const MOST_OF_FIELD = 2 ** 28;

/** The records of a file, each with the line where it begins; a text: what is wrong with one. */
async function* csvRecords(
  file: string,
  separator: Separator,
): AsyncGenerator<{ where: string; record: readonly string[] | string }> {
  const records = new CsvRecords(separator);
  let [number, begun] = [0, 1];
  for await (const line of linesIn(fileBytes(file), file)) {
    number++;
    if (records.open === undefined) begun = number;
    const where = `${file}:${begun}`;
    const text = utf8Text(line);
    if (text === undefined) {
      // What is left of a field that goes on would be another one.
      if (records.open !== undefined) throw new RlsdError("ERR_RLSD_DATA", `${file}:${number} is ${NOT_UTF8}.`);
      yield { where, record: NOT_UTF8 };
      continue;
    }
    if (records.open === undefined && text.trim() === "" && !text.includes(separator)) continue;
    const record = records.add(text);
    if (record !== undefined) yield { where, record: "problem" in record ? record.problem : record.fields };
    if ((records.open ?? 0) > MOST_OF_FIELD) break;
  }
  if (records.open === undefined) return;
  throw new RlsdError(
    "ERR_RLSD_DATA",
    `${file}:${begun}: the row has a quote that begins a field and no other that ends it.`,
  );
}

async function* readSeparated(file: string, separator: Separator): AsyncGenerator<PlacedRow> {
  let names: readonly string[] | undefined;
  for await (const { where, record } of csvRecords(file, separator)) {
    if (names === undefined) {
      if (typeof record === "string") throw new RlsdError("ERR_RLSD_DATA", `${where}: ${record}.`);
      names = headerOf(file, record, separator);
      continue;
    }
    const row = typeof record === "string" ? record : csvRow(names, record, separator);
    yield typeof row === "string" ? { where, problem: row } : { where, row };
  }
}

const readCsv = (file: string) => readSeparated(file, ",");
const readTsv = (file: string) => readSeparated(file, "\t");

const READERS: Readonly<Record<string, (file: string) => AsyncGenerator<PlacedRow>>> = {
  ".jsonl": readJsonLines,
  ".ndjson": readJsonLines,
  ".json": readJson,
  ".csv": readCsv,
  ".tsv": readTsv,
  ".jsonl.gz": readJsonLines,
  ".ndjson.gz": readJsonLines,
  ".json.gz": readJson,
  ".csv.gz": readCsv,
  ".tsv.gz": readTsv,
  ".parquet": readParquet,
};

/** The end of a name that says how a file is read (`.jsonl.gz`); undefined: none does. */
export function kindOf(file: string): string | undefined {
  const name = file.toLowerCase();
  const last = extname(name);
  const kind = last === ".gz" ? extname(name.slice(0, -last.length)) + last : last;
  return Object.hasOwn(READERS, kind) ? kind : undefined;
}

/** The rows of a JSONL, JSON, CSV, TSV or Parquet file, with every column, in order. */
export async function* readRows(file: string): AsyncGenerator<PlacedRow> {
  const kind = kindOf(file);
  if (kind === undefined) {
    const known = Object.keys(READERS).join(", ");
    throw new RlsdError(
      "ERR_RLSD_DATA",
      `${file}: cannot tell its kind from "${extname(file).toLowerCase()}". Expected one of ${known}.`,
    );
  }
  await checkFile(file);
  yield* READERS[kind]!(file);
}
