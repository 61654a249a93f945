import { RlsdError } from "../errors.js";
import { DeviceTensor, download, upload } from "./device.js";
import type { Stream } from "./stream.js";
import { empty, isTensor, type Tensor, tensor } from "./tensor.js";

function checkTensor(value: Tensor): void {
  if (isTensor(value)) return;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Expected a tensor but received a value of type ${typeof value}.`);
}

function checkStream(stream: Stream | undefined): void {
  if (stream === undefined) return;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "Expected no stream, as neither side of the copy is on a device.");
}

/**
 * A new tensor with the same values on a device. The source may change when this returns; the copy is done then, or,
 * where a stream of the device is given, before what comes after it on that stream.
 */
export function toDevice(t: Tensor, device: string, stream?: Stream): Tensor {
  checkTensor(t);
  if (device === "cpu") return toHost(t, stream);
  return upload(t instanceof DeviceTensor ? toHost(t) : t, device, stream);
}

/** A new tensor with the same values in the memory of this process, after the work on `stream`; waits for it. */
export function toHost(t: Tensor, stream?: Stream): Tensor {
  checkTensor(t);
  if (t instanceof DeviceTensor) {
    const copy = empty(t.shape, t.dtype);
    download(t, copy.data, stream);
    return copy;
  }
  checkStream(stream);
  return tensor(t.data.slice(), t.shape, t.dtype);
}
