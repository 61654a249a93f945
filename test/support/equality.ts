// Typed arrays of the same bytes are equal: expect() compares them element by element, microseconds each.

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** True, or undefined: expect() then compares, and shows, what may differ. */
function sameBytes(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b)) return undefined;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b) || a.byteLength !== b.byteLength) return undefined;
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0 ? true : undefined;
}

// @types/jest does not have it.
(expect as unknown as { addEqualityTesters(testers: readonly unknown[]): void }).addEqualityTesters([sameBytes]);
