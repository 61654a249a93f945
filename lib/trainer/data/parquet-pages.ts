import type { ColumnMetaData, PageHeader, SchemaTree } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { deltaBinaryUnpack } from "hyparquet/src/delta.js";
import { readRleBitPackedHybrid } from "hyparquet/src/encoding.js";
import { messageOf } from "../../errors.js";
import { decompress, type Packed } from "./parquet-codecs.js";
import { Leaf, OBJECT, VALUE } from "./parquet-leaf.js";
import type { Memory } from "./parquet-memory.js";
import { checkRuns } from "./parquet-runs.js";
import { checkThrift } from "./parquet-thrift.js";

/** Bytes of what is kept of a page. */
const PAGE = 600;

/** More values than any page has: beyond these, arrays are tables of hashes, which take many times as long. */
const MOST_IN_PAGE = 2 ** 25;

/** Bits of a level. */
const bitsOf = (most: number): number => 32 - Math.clz32(most);

/** A page as the library takes it, and what it says. */
interface Page extends Packed {
  readonly header: PageHeader;
  readonly values: number;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A number of a page's header, which may be of any type in a damaged one. */
function numberOf(value: unknown, most: number, name: string): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most) return value as number;
  throw new Error(`a page has ${name} of ${String(value)}, and at most ${most} can be: damaged`);
}

/** Values of a page, and where they begin. */
interface Values {
  readonly page: DataView;
  readonly at: number;
  readonly encoding: string;
  /** How many there are, or more. */
  readonly most: number;
  readonly exact: () => number;
  /** Whether runs of them, if they are in runs, are of one bit, after their length. */
  readonly isBits?: boolean;
}

/** Bytes of a decimal: the time for one grows with the square. */
const LONGEST_DECIMAL = 64;

function checkDecimal(length: number): void {
  if (length <= LONGEST_DECIMAL) return;
  throw new Error(`a decimal in it has ${length} bytes, and at most ${LONGEST_DECIMAL} can be`);
}

/** That texts, each behind its length, end where their page does or before. */
function checkTexts(page: DataView, start: number, count: number, isDecimal: boolean): void {
  for (let [at, i] = [start, 0]; i < count && at < page.byteLength; i++) {
    const length = page.getUint32(at, true);
    if (isDecimal) checkDecimal(length);
    at += 4 + length;
    if (at > page.byteLength) throw new Error(`a text of ${length} bytes is longer than its page: damaged`);
  }
}

/** The pages of one column of a group of rows, each checked before the library has it: it takes on trust what they say. */
export class ColumnPages {
  readonly #pages: Page[] = [];
  readonly #leaf: Leaf;
  /** Those that are decompressed, from a place on. */
  #unpacked: Uint8Array[] = [];
  #before = 0;
  #next = 0;

  /** @param rows of the group */
  constructor(
    bytes: ArrayBuffer,
    private readonly meta: ColumnMetaData,
    path: readonly SchemaTree[],
    rows: number,
    private readonly memory: Memory,
  ) {
    this.#leaf = new Leaf(path.at(-1)!.element, meta.type, path);
    this.#named(() => this.#walk(bytes, path, rows));
  }

  /** As the library does: of a flat column, it leaves what comes after the last row. */
  #walk(bytes: ArrayBuffer, path: readonly SchemaTree[], rows: number): void {
    const { element, repetition } = this.#leaf;
    if (path.some((one) => one.element.logical_type?.type === "VARIANT")) throw new Error("it is a VARIANT: not read");
    if (element.converted_type === "DECIMAL") checkDecimal(Number(element.type_length ?? 0));
    const isFlat = path.length === 2 && repetition === 0;
    const view = new DataView(bytes);
    let values = 0;
    for (let at = 0; at < bytes.byteLength - 1 && !(isFlat && values >= rows); ) {
      this.memory.take(PAGE * checkThrift(view, at));
      const reader = { view, offset: at };
      const header = parquetHeader(reader);
      const size = numberOf(header.compressed_page_size, bytes.byteLength - reader.offset, "a size");
      at = reader.offset + size;
      values += this.#add(header, new Uint8Array(bytes, reader.offset, size), Number(this.meta.num_values) - values);
    }
  }

  #named<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      const why = messageOf(error);
      throw new Error(`its column ${this.meta.path_in_schema.join(".")}: ${why}`, { cause: error });
    }
  }

  /** What the library takes for the decompressor of this column: its pages come one after another. */
  readonly decompress = (): Uint8Array => {
    const page = this.#next++;
    if (page >= this.#unpacked.length + this.#before) {
      // A time limit takes as long as a small page: those that need one have it together.
      const end = this.meta.codec === "ZSTD" ? this.#pages.length : page + 1;
      this.#unpacked = this.#named(() => this.#unpack(this.#pages.slice(page, end)));
      this.#before = page;
    }
    return this.#unpacked[page - this.#before]!;
  };

  #unpack(pages: readonly Page[]): Uint8Array[] {
    const unpacked = decompress(this.meta.codec, pages);
    for (const [i, page] of pages.entries()) {
      const view = viewOf(unpacked[i]!);
      if (page.header.type === "DATA_PAGE") this.#checkFirst(page, view);
      else if (page.header.type === "DATA_PAGE_V2") this.#checkSecond(page, view);
      else this.#checkValues({ page: view, at: 0, encoding: "PLAIN", most: page.values, exact: () => page.values });
    }
    return unpacked;
  }

  /** Gives how many values of the column are in it. */
  #add(header: PageHeader, bytes: Uint8Array, left: number): number {
    const size = numberOf(header.uncompressed_page_size, 2 ** 31, "a size");
    this.memory.take(size * this.#leaf.text);
    if (header.type === "DICTIONARY_PAGE") {
      const values = numberOf(header.dictionary_page_header?.num_values, MOST_IN_PAGE, "a number of values");
      this.#takeValues(values, VALUE + OBJECT, "PLAIN");
      this.#pages.push({ header, bytes, size, values });
      return 0;
    }
    const { data_page_header: first, data_page_header_v2: second } = header;
    const said = header.type === "DATA_PAGE" ? first : second;
    const values = numberOf(said?.num_values, Math.min(left, MOST_IN_PAGE), "a number of values");
    this.#takeValues(values, this.#leaf.value, said!.encoding);
    if (header.type === "DATA_PAGE") this.#pages.push({ header, bytes, size, values });
    else this.#addSecond(header, bytes, size, values);
    return values;
  }

  /** A page of the second version, whose levels stand before what is compressed. */
  #addSecond(header: PageHeader, bytes: Uint8Array, size: number, values: number): void {
    const said = header.data_page_header_v2!;
    const most = Math.min(bytes.length, size);
    const repetition = numberOf(said.repetition_levels_byte_length, most, "levels of a length");
    const definition = numberOf(said.definition_levels_byte_length, most - repetition, "levels of a length");
    numberOf(said.num_nulls, this.#leaf.definition > 0 ? values : 0, "a number of nulls");
    this.#checkLevels(viewOf(bytes), [0, repetition], values);
    const packed = bytes.subarray(repetition + (this.#leaf.definition > 0 ? definition : 0));
    const page = { header, bytes: packed, size: size - repetition - definition, values };
    if (said.is_compressed !== false) this.#pages.push(page);
    else this.#checkSecond(page, viewOf(packed));
  }

  #takeValues(values: number, bytes: number, encoding: string): void {
    const { type, element } = this.#leaf;
    this.memory.take(values * bytes);
    // Each text is an array of bytes before it is one.
    if (type.endsWith("BYTE_ARRAY") && !encoding?.endsWith("_DICTIONARY")) this.memory.need(values * 2 * OBJECT);
    if (encoding === "BYTE_STREAM_SPLIT") this.memory.take(values * Number(element.type_length ?? 8));
  }

  /** Of repetition and definition, from their places on; gives how many values are null where that is plain. */
  #checkLevels(page: DataView, places: readonly [number, number], values: number): number {
    const { repetition, definition, row } = this.#leaf;
    if (repetition > 0) {
      this.memory.take(row * checkRuns(page, places[0], bitsOf(repetition), values));
    }
    if (definition === 0) return 0;
    const zeros = checkRuns(page, places[1], bitsOf(definition), values);
    return definition === 1 ? zeros : 0;
  }

  #checkFirst({ header, values }: Page, page: DataView): void {
    const { repetition, definition, type } = this.#leaf;
    const after = (at: number): number => at + 4 + page.getUint32(at, true);
    const first = repetition > 0 ? after(0) : 0;
    const nulls = this.#checkLevels(page, [4, first + 4], values);
    const exact = () => {
      if (definition < 2) return values - nulls;
      const levels: number[] = new Array(values);
      readRleBitPackedHybrid({ view: page, offset: first }, bitsOf(definition), levels);
      return levels.filter((level) => level === definition).length;
    };
    this.#checkValues({
      page,
      at: definition > 0 ? after(first) : first,
      encoding: String(header.data_page_header!.encoding),
      most: values - nulls,
      exact,
      isBits: type === "BOOLEAN",
    });
  }

  #checkSecond({ header, values }: Page, page: DataView): void {
    const { encoding, num_nulls: nulls } = header.data_page_header_v2!;
    const count = values - nulls;
    this.#checkValues({
      page,
      at: 0,
      encoding: String(encoding),
      most: count,
      exact: () => count,
      isBits: encoding === "RLE",
    });
  }

  #checkValues({ page, at, encoding, most, exact, isBits = false }: Values): void {
    if (most === 0) return;
    const { type, isDecimal } = this.#leaf;
    // What seems to be damaged may stand after the last value.
    const check = (run: (count: number) => unknown) => {
      try {
        run(most);
      } catch {
        run(exact());
      }
    };
    if (encoding === "PLAIN" && type === "BYTE_ARRAY") check((count) => checkTexts(page, at, count, isDecimal));
    if (encoding === "DELTA_BYTE_ARRAY") this.#checkPrefixes(page, at, exact());
    if (isDecimal && encoding.startsWith("DELTA")) throw new Error(`its decimals are ${encoding}: not read`);
    if (encoding !== "RLE" && !encoding.endsWith("_DICTIONARY")) return;
    const width = isBits ? 1 : page.getUint8(at);
    if (width > 32) throw new Error(`a page has indices of ${width} bits: damaged`);
    check((count) => checkRuns(page, at + (isBits ? 4 : 1), width, count));
  }

  /** Of texts that each begin as the one before: they may be far longer than what they are made of. */
  #checkPrefixes(page: DataView, at: number, count: number): void {
    const reader = { view: page, offset: at };
    const lengths = [new Int32Array(count), new Int32Array(count)];
    for (const some of lengths) deltaBinaryUnpack(reader, count, some);
    let sum = 0;
    for (const some of lengths) for (const length of some) sum += length < 0 ? Number.NaN : length;
    if (Number.isNaN(sum)) throw new Error("a text in it has a length below 0: damaged");
    this.memory.take(this.#leaf.text * sum);
  }
}
