/**
 * Ranges [start, end) of characters between `open` and `close`, tags excluded; the last may be unclosed. `inside`: the text
 * begins between them.
 */
export function spansIn(text: string, open: string, close: string, inside = false): [number, number][] {
  const spans: [number, number][] = [];
  let at = 0;
  if (inside) {
    const end = text.indexOf(close);
    if (end < 0) return [[0, text.length]];
    spans.push([0, end]);
    at = end + close.length;
  }
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
 * tokenizer cut them: `</` and `think>` may be tokens of any shape. A prompt that ends with the open tag, as templates of
 * reasoning models do, has opened the first span.
 *
 * @param pieces the text that each token adds
 */
export function spanMask(
  pieces: readonly string[],
  { open, close }: { readonly open: string; readonly close: string },
  prompt: string,
): Uint8Array {
  const text = pieces.join("");
  const inside = prompt.trimEnd().endsWith(open.trim()) && !text.trimStart().startsWith(open.trim());
  const spans = spansIn(text, open, close, inside);
  const mask = new Uint8Array(pieces.length);
  let start = 0;
  for (const [i, piece] of pieces.entries()) {
    const end = start + piece.length;
    if (spans.some(([from, to]) => Math.max(start, from) < Math.min(end, to))) mask[i] = 1;
    start = end;
  }
  return mask;
}
