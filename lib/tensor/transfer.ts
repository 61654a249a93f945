import { RlsdError } from "../errors.js";
import { DeviceTensor, download, downloadQueued, upload, uploadQueued } from "./device.js";
import type { DType } from "./dtype.js";
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
export function toDevice<D extends DType>(t: Tensor<D>, device: string, stream?: Stream): Tensor<D>;
export function toDevice(t: Tensor, device: string, stream?: Stream): Tensor {
  checkTensor(t);
  if (device === "cpu") return toHost(t, stream);
  return upload(t instanceof DeviceTensor ? toHost(t) : t, device, stream);
}

/**
 * A new tensor with the same values in the memory of this process, after the work on `stream` (default: the device's
 * default stream) and after the call that made the values; waits for it. `toHostAsync` does not.
 *
 * @throws RlsdError what a call with `results: "device"` found wrong, when this is one of its results
 */
export function toHost<D extends DType>(t: Tensor<D>, stream?: Stream): Tensor<D>;
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

/**
 * `toHost` without waiting on this thread. The native queue's thread moves the values through two pinned blocks of at
 * most 8 MiB in turn, on a stream of its own: the device copies into one while the other is emptied, and neither this
 * thread nor the caller's stream is held up. It copies what the tensor holds after the work that `stream` has now;
 * until it resolves a call that would write the tensor gets ERR_RLSD_BUSY. A tensor disposed meanwhile lives until then.
 * A worker or process may end in the middle: what has begun is abandoned, and nothing is written after that.
 *
 * @throws as toHost
 */
export async function toHostAsync<D extends DType>(t: Tensor<D>, stream?: Stream): Promise<Tensor<D>>;
export async function toHostAsync(t: Tensor, stream?: Stream): Promise<Tensor> {
  checkTensor(t);
  if (!(t instanceof DeviceTensor)) return toHost(t, stream);
  const copy = empty(t.shape, t.dtype);
  await downloadQueued(t, copy.data, stream);
  return copy;
}

/**
 * `toDevice` without waiting on this thread, by the way of `toHostAsync`. The source must not be written until it
 * resolves: a call that would gets ERR_RLSD_BUSY. The new tensor is complete then, for every stream.
 *
 * @throws RlsdError ERR_RLSD_OUT_OF_MEMORY, ERR_RLSD_BACKEND_UNAVAILABLE as toDevice; ERR_RLSD_UNSUPPORTED where this
 *   version of Node cannot keep the source's memory in its place (make it with `empty`)
 */
export async function toDeviceAsync<D extends DType>(t: Tensor<D>, device: string): Promise<Tensor<D>>;
export async function toDeviceAsync(t: Tensor, device: string): Promise<Tensor> {
  checkTensor(t);
  if (device === "cpu") return toHostAsync(t);
  return uploadQueued(t instanceof DeviceTensor ? await toHostAsync(t) : t, device);
}
