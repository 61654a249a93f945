import { RlsdError } from "../errors.js";
import type { Stream } from "./stream.js";
import { isTensor, type Tensor, tensor } from "./tensor.js";

function checkTensor(value: Tensor): void {
  if (isTensor(value)) return;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Expected a tensor but received a value of type ${typeof value}.`);
}

function checkStream(stream: Stream | undefined): void {
  if (stream === undefined) return;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "Expected no stream, as neither side of the copy is on a device.");
}

/** A new tensor with the same values on a device. */
export function toDevice(t: Tensor, device: string, stream?: Stream): Tensor {
  checkTensor(t);
  if (device === "cpu") return toHost(t, stream);
  throw new RlsdError("ERR_RLSD_BACKEND_UNAVAILABLE", `No backend serves the device ${device}. Available: cpu.`);
}

/** A new tensor with the same values in the memory of this process. */
export function toHost(t: Tensor, stream?: Stream): Tensor {
  checkTensor(t);
  checkStream(stream);
  return tensor(t.data.slice(), t.shape, t.dtype);
}
