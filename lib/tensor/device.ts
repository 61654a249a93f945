import { invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { cudaState, describeDevice } from "../native/cuda.js";
import type { DeviceHandle } from "../native/device-binding.js";
import { native } from "../native/load.js";
import { throwUnlessDone, throwUnlessOk } from "../native/status.js";
import { BaseTensor, disposedError, elementCount, type Tensor } from "./base.js";
import { leaseOnDevice, orderAfter } from "./device-lease.js";
import { disposeAfter } from "./dispose.js";
import type { DType } from "./dtype.js";
import { lease } from "./lease.js";
import type { Stream } from "./stream.js";

export interface DevicePlace {
  /** Index of the backend in the native registry. */
  readonly backend: number;
  readonly ordinal: number;
}

const unavailable = (device: string, why: string): RlsdError =>
  new RlsdError("ERR_RLSD_BACKEND_UNAVAILABLE", `No backend serves the device ${device}: ${why}`);

/** Ordinals of devices that were found to be such as can be used. */
const usable = new Set<number>();

/** Where "cuda:0" is; "cuda" is its first device. Throws ERR_RLSD_BACKEND_UNAVAILABLE and says why. */
export function findDevice(device: string): DevicePlace {
  if (typeof device !== "string") throw invalid('"cpu" or "cuda:<number>"', "device", device);
  const match = /^cuda(?::(\d+))?$/.exec(device);
  if (match === null) throw unavailable(device, 'expected "cpu" or "cuda:<number>".');
  const state = cudaState();
  if (!state.available) throw unavailable(device, `${state.reason}. ${state.message}`);
  const ordinal = Number(match[1] ?? 0);
  if (ordinal >= state.devices) {
    const count = state.devices === 1 ? "is 1 device" : `are ${state.devices} devices`;
    throw unavailable(device, `there ${count}, from cuda:0.`);
  }
  if (usable.has(ordinal)) return { backend: state.backend, ordinal };
  const { message } = describeDevice(state.backend, ordinal);
  if (message !== undefined) throw unavailable(device, message);
  usable.add(ordinal);
  return { backend: state.backend, ordinal };
}

/** The object of a native call that returns one or a status. */
export function handleOrThrow(made: DeviceHandle | number): DeviceHandle {
  if (typeof made === "number") {
    throwUnlessOk(made);
    throw new RlsdError("ERR_RLSD_INTERNAL", "A device call made nothing.");
  }
  return made;
}

export const byteLength = (shape: readonly number[], dtype: DType): number =>
  elementCount(shape) * (dtype === "f32" ? 4 : 2);

/** A tensor in a device's memory. */
export class DeviceTensor extends BaseTensor {
  readonly device: string;
  readonly place: DevicePlace;
  #handle: DeviceHandle | undefined;

  constructor(handle: DeviceHandle, place: DevicePlace, shape: readonly number[], dtype: DType) {
    super(shape, dtype);
    this.#handle = handle;
    this.place = place;
    this.device = `cuda:${place.ordinal}`;
  }

  get handle(): DeviceHandle {
    if (this.#handle !== undefined) return this.#handle;
    throw disposedError();
  }

  get data(): never {
    const message = `This tensor lies in the memory of ${this.device}, which JavaScript cannot read. Use toHost(tensor).`;
    throw this.#handle === undefined ? disposedError() : new RlsdError("ERR_RLSD_DEVICE_TENSOR", message);
  }

  /** Address of the first element. */
  get pointer(): bigint {
    const pointer = native.devicePointer(this.handle);
    if (typeof pointer === "bigint") return pointer;
    throwUnlessOk(pointer);
    return 0n;
  }

  get byteLength(): number {
    return byteLength(this.shape, this.dtype);
  }

  /**
   * Waits for the device's work; a call that has not ended goes on, and the memory goes with its end. What a device that
   * was lost cannot give back is no error here.
   */
  [Symbol.dispose](): void {
    const handle = this.#handle;
    this.#handle = undefined;
    if (handle !== undefined) throwUnlessOk(native.deviceRelease(handle));
  }
}

/** Work on one device, in order; not ordered with work on other streams, unless one waits for another. */
export class DeviceStream implements Stream {
  readonly device: string;
  readonly place: DevicePlace;
  #handle: DeviceHandle | undefined;

  constructor(handle: DeviceHandle, place: DevicePlace) {
    this.#handle = handle;
    this.place = place;
    this.device = `cuda:${place.ordinal}`;
  }

  get handle(): DeviceHandle {
    if (this.#handle !== undefined) return this.#handle;
    throw new RlsdError("ERR_RLSD_DISPOSED", "This stream was disposed. Make a new one with createStream().");
  }

  async synchronize(): Promise<void> {
    throwUnlessDone(await native.streamSynchronize(this.handle));
  }

  waitFor(other: Stream): void {
    throwUnlessOk(native.streamWait(this.handle, streamHandle(other, this.device) as DeviceHandle));
    orderAfter(this, other);
  }

  [Symbol.dispose](): void {
    const handle = this.#handle;
    this.#handle = undefined;
    if (handle !== undefined) throwUnlessOk(native.deviceRelease(handle));
  }
}

/** A new stream of a device: `createStream("cuda:0")`. */
export function createStream(device: string): Stream {
  const place = findDevice(device);
  return new DeviceStream(handleOrThrow(native.streamCreate(place.backend, place.ordinal)), place);
}

/** The native stream of a call on `device`; undefined: the device's default stream. */
export function streamHandle(stream: Stream | undefined, device: string): DeviceHandle | undefined {
  if (stream === undefined) return undefined;
  if (stream instanceof DeviceStream && stream.device === device) return stream.handle;
  const received = stream instanceof DeviceStream ? `one of ${stream.device}` : "something else";
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Expected a stream of ${device} but received ${received}.`);
}

/** Until what was enqueued on no stream of the caller's is done: other streams are not ordered with it. */
function settle(handle: DeviceHandle, stream: DeviceHandle | undefined): void {
  if (stream === undefined) throwUnlessOk(native.deviceRead(handle, undefined, new Uint8Array(0)));
}

/** Memory with no values yet. */
export function allocateOnDevice(shape: readonly number[], dtype: DType, place: DevicePlace): DeviceTensor {
  const made = native.deviceAllocate(place.backend, place.ordinal, byteLength(shape, dtype));
  return new DeviceTensor(handleOrThrow(made), place, shape, dtype);
}

/** Zeros on a device. */
export function emptyOnDevice(shape: readonly number[], dtype: DType, device: string): Tensor {
  const t = allocateOnDevice(shape, dtype, findDevice(device));
  try {
    throwUnlessOk(native.deviceClear(t.handle));
    settle(t.handle, undefined);
    return t;
  } catch (error) {
    return disposeAfter(error, t);
  }
}

/** A copy of host memory on a device, ordered on `stream`. */
export function upload(t: Tensor, device: string, stream: Stream | undefined): Tensor {
  const place = findDevice(device);
  const on = streamHandle(stream, `cuda:${place.ordinal}`);
  const copy = allocateOnDevice(t.shape, t.dtype, place);
  try {
    throwUnlessOk(native.deviceWrite(copy.handle, on, t.data));
    settle(copy.handle, on);
    return copy;
  } catch (error) {
    return disposeAfter(error, copy);
  }
}

/** Fills `data` from a device's memory after what `stream` holds; waits for it. */
export function download(t: DeviceTensor, data: Float32Array | Uint16Array, stream: Stream | undefined): void {
  throwUnlessOk(native.deviceRead(t.handle, streamHandle(stream, t.device), data));
}

/** `upload` on the queue's thread; the source is leased until it is over. */
export async function uploadQueued(t: Tensor, device: string): Promise<Tensor> {
  const { data } = t;
  const release = lease({ reads: [data], writes: [] });
  let copy: DeviceTensor | undefined;
  try {
    copy = allocateOnDevice(t.shape, t.dtype, findDevice(device));
    throwUnlessDone(await native.deviceUpload(copy.handle, undefined, data));
    return copy;
  } catch (error) {
    return disposeAfter(error, copy);
  } finally {
    release();
  }
}

/** `download` on the queue's thread; the source is leased until it is over. */
export async function downloadQueued(
  t: DeviceTensor,
  data: Float32Array | Uint16Array,
  stream: Stream | undefined,
): Promise<void> {
  const on = streamHandle(stream, t.device);
  const release = leaseOnDevice({ reads: [t], writes: [] }, "none");
  try {
    throwUnlessDone(await native.deviceDownload(t.handle, on, data));
  } finally {
    release();
  }
}
