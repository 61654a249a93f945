const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

/** Of bits from a place on, how many are 0. */
function zerosOf(page: DataView, at: number, bits: number): number {
  let zeros = 0;
  for (let left = bits; left > 0; left -= 8, at++) {
    zeros += Math.min(8, left) - ONES[page.getUint8(at) & (left < 8 ? 2 ** left - 1 : 255)]!;
  }
  return zeros;
}

/** The header of a run: its length by 2, and 1 more where its values are packed. */
function headerOf(page: DataView, at: number): { readonly header: number; readonly end: number } {
  let header = 0;
  for (let i = 0; i < 5; i++) {
    const byte = page.getUint8(at + i);
    header += (byte & 127) * 2 ** (7 * i);
    if (byte < 128) return { header, end: at + i + 1 };
  }
  throw new Error("a run has a length of more than five bytes: damaged");
}

/**
 * Goes through runs of values of some bits each, as many as there are or as the page has: none is longer than what is left. The
 * library writes as many as a run says.
 *
 * @returns how many are 0; of values of more than one bit, how many there are
 */
export function checkRuns(page: DataView, start: number, width: number, count: number): number {
  let [at, seen, zeros] = [start, 0, 0];
  while (seen < count && at < page.byteLength) {
    const { header, end } = headerOf(page, at);
    const isPacked = header % 2 === 1;
    const length = isPacked ? (header - 1) * 4 : header / 2;
    const left = count - seen;
    // Packed values come by eights, and some writers fill up what they have room for.
    if (length > left + (isPacked ? 512 : 0)) {
      throw new Error(`a run has ${length} values where its page has ${left} left: damaged`);
    }
    if (width !== 1) zeros += Math.min(length, left);
    else if (isPacked) zeros += zerosOf(page, end, Math.min(length, left));
    else zeros += page.getUint8(end) === 0 ? length : 0;
    seen += length;
    at = end + (isPacked ? Math.max(1, (length / 8) * width) : Math.ceil(width / 8));
  }
  return zeros;
}
