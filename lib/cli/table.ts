/** Characters that a terminal shows on two columns: those of East Asian width W and F, and emoji. */
const WIDE =
  /[\p{Emoji_Presentation}\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{17000}-\u{18dff}\u{20000}-\u{3fffd}]/u;
/** And on none. */
const NONE = /[\p{Mn}\p{Me}\p{Cf}]/u;

/** Columns of a terminal that a text takes. */
export function columnsOf(text: string): number {
  let columns = 0;
  for (const char of text) columns += NONE.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
  return columns;
}

/** Rows of cells as lines with aligned columns, two spaces between; `right` says which columns are aligned there. */
export function tableLines(
  rows: readonly (readonly string[])[],
  right: (column: number) => boolean = () => false,
): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => columnsOf(row[i]!))));
  return rows.map((row) =>
    row
      .map((cell, i) => {
        const rest = " ".repeat(widths[i]! - columnsOf(cell));
        return right(i) ? rest + cell : cell + rest;
      })
      .join("  ")
      .trimEnd(),
  );
}
