import { empty, type Tensor } from "../../lib/index.js";

const isTensor = (value: object): value is Tensor => "shape" in value && "dtype" in value;

/** The tensor's values in memory that every Node keeps in its place during a queued call: Node 22 not a caller's own. */
export function kept(t: Tensor): Tensor {
  const copy = empty(t.shape, t.dtype);
  copy.data.set(t.data as never);
  return copy;
}

/** A batch whose tensors are kept. */
export function queueable<T extends object>(batch: T): T {
  const entries = Object.entries(batch).map(([name, value]) => {
    if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value))
      return [name, value];
    return [name, isTensor(value) ? kept(value) : queueable(value)];
  });
  return Object.fromEntries(entries) as T;
}
