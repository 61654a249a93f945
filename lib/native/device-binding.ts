import type { Outcome } from "./binding.js";

/** Memory or a stream of a backend's device, in native memory. */
export interface DeviceHandle {
  readonly device?: never;
}

/** Bytes of a handle that another process can open: rlsd_ipc_handle. */
export const IPC_HANDLE_BYTES = 72;

export interface DeviceDescription {
  readonly name: string;
  /** Compute capability, "9.0". */
  readonly compute: string;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  /** As the runtime counts: 13000 is 13.0. */
  readonly driverVersion: number;
  readonly runtimeVersion: number;
}

/** A view of host memory that native code reads or writes. */
export type HostBytes = Float32Array | Uint16Array | Uint8Array;

/** The functions of csrc/napi/device.cc. A number where an object is expected is a status. */
export interface DeviceBinding {
  /** Whether the system's loader finds a library of this name. */
  probeLibrary(name: string): boolean;
  /** How many devices, or -1 and lastError. */
  deviceCount(backend: number): number;
  deviceInfo(backend: number, ordinal: number): DeviceDescription | number;
  deviceAllocate(backend: number, ordinal: number, bytes: number): DeviceHandle | number;
  /** Memory that another library owns; bytes below 0: a stream. */
  deviceBorrow(backend: number, ordinal: number, bytes: number, pointer: bigint): DeviceHandle | number;
  /** Memory of another process. */
  deviceOpen(backend: number, ordinal: number, bytes: number, handle: Uint8Array): DeviceHandle | number;
  deviceExport(memory: DeviceHandle, handle: Uint8Array): number;
  devicePointer(handle: DeviceHandle): bigint | number;
  deviceRelease(handle: DeviceHandle): number;
  /** `data` may change when this returns. */
  deviceWrite(memory: DeviceHandle, stream: DeviceHandle | undefined, data: HostBytes): number;
  deviceClear(memory: DeviceHandle, stream: DeviceHandle | undefined): number;
  /** Waits for the stream; with `queued` on the native queue. */
  deviceRead(
    memory: DeviceHandle,
    stream: DeviceHandle | undefined,
    data: HostBytes,
    queued: number,
  ): number | Promise<Outcome>;
  streamCreate(backend: number, ordinal: number): DeviceHandle | number;
  streamSynchronize(stream: DeviceHandle): number | Promise<Outcome>;
  streamWait(stream: DeviceHandle, other: DeviceHandle): number;
}
