/** One head's rows, from halves that are rotated with each other to neighbours that are, or back. */
function moved(head: Uint8Array, rows: number, toPairs: boolean): Uint8Array<ArrayBuffer> {
  const width = head.length / rows;
  const out = new Uint8Array(head.length);
  for (let half = 0; half < rows; half++) {
    const pair = half < rows / 2 ? 2 * half : 2 * half - rows + 1;
    const [from, to] = toPairs ? [half, pair] : [pair, half];
    out.set(head.subarray(from * width, (from + 1) * width), to * width);
  }
  return out;
}

/** Rows 0, d/2, 1, d/2 + 1, ... of one head, whose first half of d rows is rotated with its second. */
export const pairRows = (head: Uint8Array, rows: number): Uint8Array<ArrayBuffer> => moved(head, rows, true);

/** Rows 0, 2, 4, ... then 1, 3, 5, ... of one head: those whose pairs were neighbours. */
export const unpairRows = (head: Uint8Array, rows: number): Uint8Array<ArrayBuffer> => moved(head, rows, false);
