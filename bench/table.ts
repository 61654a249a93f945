/** One table of figures. Cells are numbers where a machine should read them. */
export interface BenchTable {
  readonly title: string;
  readonly columns: string[];
  readonly rows: (string | number)[][];
  /** What was compared with what, and what could not be measured here. */
  readonly notes?: string[];
}

export interface BenchOptions {
  /** Fewer repetitions and smaller shapes: shows that a bench runs, not what the machine can do. */
  readonly quick: boolean;
}

function cell(value: string | number): string {
  if (typeof value === "string") return value;
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** The table as aligned plain text. */
export function formatTable(table: BenchTable): string {
  const rows = [table.columns, ...table.rows.map((row) => row.map(cell))];
  const widths = table.columns.map((_, i) => Math.max(...rows.map((row) => (row[i] ?? "").length)));
  const lines = rows.map((row) => row.map((text, i) => text.padEnd(widths[i] ?? 0)).join("  "));
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [table.title, lines[0], rule, ...lines.slice(1), ...(table.notes ?? []).map((note) => `* ${note}`)].join("\n");
}
