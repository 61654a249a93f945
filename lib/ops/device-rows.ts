import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import { encodingOf } from "../objectives/encode.js";
import type { Objective } from "../objectives/objective.js";
import { findDevice } from "../tensor/device.js";
import { DTYPE_CODES, type DType } from "../tensor/dtype.js";

/** Which kernel a loss gets for its rows of logits on a device as it is now. */
export interface DeviceRows {
  readonly kernel: "rows-plain" | "rows-resident";
  /** Blocks that share a row. */
  readonly blocks: number;
  /** What `blocks` is where the device, or this process's share of it, has room; 0: rows of this kind are not kept. */
  readonly preferredBlocks: number;
  /** Rows that are kept on the device at a time. */
  readonly atOnce: number;
}

/** rlsd_row_kernel of csrc/include/rlsd/rlsd.h. */
const ROWS_RESIDENT = 2;

/** Of aligned rows of V columns whose gradient is wanted. Makes a context on the device; throws what the loss would. */
export function deviceRows(device: string, vocab: number, dtype: DType, objective: Objective): DeviceRows {
  const { backend, ordinal } = findDevice(device);
  const found = native.deviceRows(backend, ordinal, vocab, DTYPE_CODES[dtype], encodingOf(objective));
  if (typeof found === "number") {
    throwUnlessOk(found);
    throw new Error("A device call answered nothing.");
  }
  const [kernel, blocks, preferredBlocks, atOnce] = found;
  return { kernel: kernel === ROWS_RESIDENT ? "rows-resident" : "rows-plain", blocks, preferredBlocks, atOnce };
}

/** "rows-resident by 4 blocks a row, 99 rows at a time", and what it would be with more room. */
export function deviceRowsText({ kernel, blocks, preferredBlocks, atOnce }: DeviceRows): string {
  const by = (count: number) => `${count} ${count === 1 ? "block" : "blocks"} a row`;
  const what = kernel === "rows-plain" ? kernel : `${kernel} by ${by(blocks)}, ${atOnce} rows at a time`;
  const isLess = preferredBlocks > 0 && (kernel === "rows-plain" || blocks !== preferredBlocks);
  return isLess ? `${what} (no room for ${by(preferredBlocks)})` : what;
}
