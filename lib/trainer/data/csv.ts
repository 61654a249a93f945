/**
 * CSV as RFC 4180 has it, and the same with tabs: records that end at a line break, fields in quotes that hold that and the
 * separator, a quote in them twice.
 */

export type Separator = "," | "\t";

/** What a record comes to: its fields, or what is wrong with it. */
type CsvRecord = { readonly fields: readonly string[] } | { readonly problem: string };

/** Puts records together from the lines of a file: a field in quotes may go on over several. */
export class CsvRecords {
  #fields: string[] = [];
  /** What a field in quotes has so far; undefined: none is open. */
  #quoted: string | undefined;
  readonly #separator: Separator;

  constructor(separator: Separator) {
    this.#separator = separator;
  }

  /** Characters of a field in quotes that goes on in the next line; undefined: none does. */
  get open(): number | undefined {
    return this.#quoted?.length;
  }

  /** Takes the next line, without its line feed; undefined: the record goes on. */
  add(line: string): CsvRecord | undefined {
    let at = 0;
    if (this.#quoted === undefined) this.#fields = [];
    for (;;) {
      if (this.#quoted === undefined && line[at] === '"') {
        this.#quoted = "";
        at++;
      }
      const end = this.#quoted === undefined ? this.#plain(line, at) : this.#inQuotes(line, at);
      if (typeof end === "object") return end;
      if (end === undefined) return undefined;
      if (end === line.length) return { fields: this.#fields };
      at = end + 1;
    }
  }

  /** A field without quotes; where it ends: at a separator, or where the line does. */
  #plain(line: string, at: number): number {
    const end = line.indexOf(this.#separator, at);
    this.#fields.push(end < 0 ? line.slice(at).replace(/\r$/, "") : line.slice(at, end));
    return end < 0 ? line.length : end;
  }

  /** The same of a field in quotes; undefined: it goes on in the next line. */
  #inQuotes(line: string, at: number): number | CsvRecord | undefined {
    for (let from = at; ; ) {
      const quote = line.indexOf('"', from);
      if (quote < 0) {
        this.#quoted += `${line.slice(from)}\n`;
        return undefined;
      }
      this.#quoted += line.slice(from, quote);
      from = quote + 2;
      if (line[quote + 1] === '"') this.#quoted += '"';
      else return this.#closed(line, quote + 1);
    }
  }

  #closed(line: string, at: number): number | CsvRecord {
    this.#fields.push(this.#quoted!);
    this.#quoted = undefined;
    if (line[at] === this.#separator) return at;
    const rest = line.slice(at);
    if (rest === "" || rest === "\r") return line.length;
    return {
      problem: `there is text behind the quote that ends field ${this.#fields.length}: a quote in a field is written twice`,
    };
  }
}
