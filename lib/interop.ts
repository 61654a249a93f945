/**
 * Device memory that another library owns, or that another process is to use. The one unsafe door: a wrong pointer, shape
 * or lifetime is not noticed here and ends the process's use of the device, or reads what it should not.
 */
import { checkObject, invalid } from "./check.js";
import { RlsdError } from "./errors.js";
import { IPC_HANDLE_BYTES } from "./native/device-binding.js";
import { native } from "./native/load.js";
import { throwUnlessOk } from "./native/status.js";
import { checkShape } from "./tensor/base.js";
import { byteLength, DeviceStream, DeviceTensor, findDevice, handleOrThrow } from "./tensor/device.js";
import { DTYPES_TEXT, type DType, isDType } from "./tensor/dtype.js";
import type { Stream } from "./tensor/stream.js";
import type { Tensor } from "./tensor/tensor.js";

/** What a pointer points at. */
export interface Layout {
  /** Contiguous, row-major. */
  readonly shape: readonly number[];
  /** Of its elements. */
  readonly dtype: DType;
  /** "cuda:0" */
  readonly device: string;
}

const LAYOUT: ReadonlySet<string> = new Set<keyof Layout>(["shape", "dtype", "device"]);

/** Shape and dtype, checked, and where it is. */
function readLayout(layout: Layout) {
  checkObject(layout, "layout", LAYOUT);
  const { shape, dtype, device } = layout;
  const dimensions = checkShape(shape);
  if (!isDType(dtype)) throw invalid(DTYPES_TEXT, "layout.dtype", dtype);
  return { shape: dimensions, dtype, place: findDevice(device) };
}

function deviceTensor(t: Tensor): DeviceTensor {
  if (t instanceof DeviceTensor) return t;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "Expected a tensor on a device but received one on the CPU.");
}

/** A tensor over memory that its owner keeps alive and in place until the tensor was disposed. Disposing frees nothing. */
export function fromPointer(pointer: bigint, layout: Layout): Tensor {
  if (typeof pointer !== "bigint") throw invalid("a bigint", "pointer", pointer);
  const { shape, dtype, place } = readLayout(layout);
  const made = native.deviceBorrow(place.backend, place.ordinal, byteLength(shape, dtype), pointer);
  return new DeviceTensor(handleOrThrow(made), place, shape, dtype);
}

/** Address of a tensor's first element on its device. Valid until the tensor is disposed. */
export function pointerOf(t: Tensor): bigint {
  return deviceTensor(t).pointer;
}

/** A stream that another library owns: order our work on it and it is ordered with that library's. */
export function streamFromPointer(pointer: bigint, device: string): Stream {
  const place = findDevice(device);
  return new DeviceStream(handleOrThrow(native.deviceBorrow(place.backend, place.ordinal, -1, pointer)), place);
}

/**
 * A handle of 72 bytes by which another process of this machine can open the tensor's memory. What was queued on it must
 * be done before the other reads: synchronize first. The tensor must outlive the other's use.
 */
export function exportHandle(t: Tensor): Uint8Array {
  const handle = new Uint8Array(IPC_HANDLE_BYTES);
  throwUnlessOk(native.deviceExport(deviceTensor(t).handle, handle));
  return handle;
}

/** A tensor over memory that another process exported. Disposing closes it. A process cannot open its own handles. */
export function fromHandle(handle: Uint8Array, layout: Layout): Tensor {
  const { shape, dtype, place } = readLayout(layout);
  if (!(handle instanceof Uint8Array) || handle.length !== IPC_HANDLE_BYTES) {
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Expected a Uint8Array(${IPC_HANDLE_BYTES}) for handle.`);
  }
  const made = native.deviceOpen(place.backend, place.ordinal, byteLength(shape, dtype), handle);
  return new DeviceTensor(handleOrThrow(made), place, shape, dtype);
}
