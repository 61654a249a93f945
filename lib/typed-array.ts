/**
 * What a typed array is, asked of its own slots: no prototype, proxy, subclass or property can forge the answer. Native
 * code relies on that, as it reads the same slots.
 */
import { types } from "node:util";

const Base = Object.getPrototypeOf(Float32Array.prototype) as object;

function getterOf<T>(prototype: object, name: PropertyKey): (this: unknown) => T {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as (this: unknown) => T;
}

const name = getterOf<string | undefined>(Base, Symbol.toStringTag);
const elements = getterOf<number>(Base, "length");
const memory = getterOf<ArrayBufferLike>(Base, "buffer");
const offset = getterOf<number>(Base, "byteOffset");
const bytes = getterOf<number>(Base, "byteLength");
const resizable = getterOf<boolean>(ArrayBuffer.prototype, "resizable");
const growable = getterOf<boolean>(SharedArrayBuffer.prototype, "growable");

/** "Float32Array" and so on, undefined for all else. Nothing changes it later. */
export const typedArrayName = (value: unknown): string | undefined => name.call(value);

/** Elements; 0 when the buffer was detached. */
export const lengthOf = (array: ArrayBufferView): number => elements.call(array);

export const bufferOf = (array: ArrayBufferView): ArrayBufferLike => memory.call(array);

/** Whether its memory was given away: to another thread, or by `transfer()`. */
export function isDetached(array: ArrayBufferView): boolean {
  if (elements.call(array) > 0) return false;
  try {
    new Uint8Array(memory.call(array));
    return false;
  } catch {
    return true;
  }
}

/** The bytes of its buffer that it views: [begin, end). */
export function bytesOf(array: ArrayBufferView): { readonly begin: number; readonly end: number } {
  const begin = offset.call(array);
  return { begin, end: begin + bytes.call(array) };
}

/** Whether a buffer can be made larger or smaller. */
export const isResizable = (buffer: ArrayBufferLike): boolean =>
  types.isSharedArrayBuffer(buffer) ? growable.call(buffer) : resizable.call(buffer);
