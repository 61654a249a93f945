/** Ranges [start, end) of characters between `open` and `close`, tags excluded; the last may be unclosed. */
export function spansIn(text: string, open: string, close: string): [number, number][] {
  const spans: [number, number][] = [];
  let at = 0;
  for (;;) {
    const start = text.indexOf(open, at);
    if (start < 0) return spans;
    const from = start + open.length;
    const end = text.indexOf(close, from);
    if (end < 0) {
      spans.push([from, text.length]);
      return spans;
    }
    spans.push([from, end]);
    at = end + close.length;
  }
}

/**
 * 1 for every token with a character inside a span. Tags are found in the decoded text, so it does not matter how the
 * tokenizer cut them: `</` and `think>` may be tokens of any shape.
 *
 * @param pieces the text that each token adds
 */
export function spanMask(pieces: readonly string[], open: string, close: string): Uint8Array {
  const spans = spansIn(pieces.join(""), open, close);
  const mask = new Uint8Array(pieces.length);
  let start = 0;
  for (const [i, piece] of pieces.entries()) {
    const end = start + piece.length;
    if (spans.some(([from, to]) => Math.max(start, from) < Math.min(end, to))) mask[i] = 1;
    start = end;
  }
  return mask;
}
