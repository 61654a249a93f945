import type { Outcome } from "./binding.js";

/** Memory or a stream of a backend's device, in native memory. */
export interface DeviceHandle {
  readonly device?: never;
}

/** Bytes of a handle that another process can open: rlsd_ipc_handle. */
export const IPC_HANDLE_BYTES = 72;

interface FoundDevice {
  readonly name: string;
  /** Compute capability, "9.0". */
  readonly compute: string;
  readonly memoryBytes: number;
  /** Where this process uses the device already: asking another would take some of its memory. */
  readonly freeBytes?: number;
  /** As the runtime counts: 13000 is 13.0. */
  readonly driverVersion: number;
  readonly runtimeVersion: number;
}

/** A device, by its ordinal's place in a list. `message`: why it cannot be used, which may be all that is known of it. */
export type DeviceDescription =
  | (FoundDevice & { readonly message?: string })
  | ({ readonly [Name in keyof FoundDevice]?: undefined } & { readonly message: string });

/** A view of host memory that native code reads or writes. */
type HostBytes = Float32Array | Uint16Array | Uint8Array;

/** (N) values: of the host, copied up when the call is made, or on the call's device. */
export type DeviceValues = Float32Array | DeviceHandle;

/** Every argument of `devicePolicyLoss`, in order. Its results lie where they are to be written: host or device. */
type DevicePolicyLossArguments = [
  meta: Float64Array,
  objective: Float64Array,
  stream: DeviceHandle | undefined,
  tokenIds: Int32Array | undefined,
  cuSeqlens: Int32Array,
  completionMask: Uint8Array | undefined,
  spanMask: Uint8Array | undefined,
  advantages: DeviceValues,
  oldLogProbs: DeviceValues | undefined,
  refLogProbs: DeviceValues | undefined,
  samplerLogProbs: DeviceValues | undefined,
  student: DeviceValues,
  studentRows: Int32Array | undefined,
  teacher: DeviceValues | undefined,
  teacherRows: Int32Array | undefined,
  contrast: DeviceValues | undefined,
  contrastRows: Int32Array | undefined,
  logProbs: DeviceValues,
  teacherLogProbs: DeviceValues | undefined,
  tokenAdvantages: DeviceValues,
  evidenceWeights: DeviceValues,
  gradientLogProbs: DeviceValues,
  gradientLogits: DeviceHandle | undefined,
  report: DeviceHandle | undefined,
];

/** Every argument of `deviceTokenLogProbs`, in order. */
type DeviceTokenLogProbsArguments = [
  meta: Float64Array,
  stream: DeviceHandle | undefined,
  tokenIds: Int32Array,
  completionMask: Uint8Array | undefined,
  logits: DeviceValues,
  rows: Int32Array | undefined,
  logProbs: DeviceValues,
  entropy: DeviceValues | undefined,
  report: DeviceHandle | undefined,
];

/** The functions of csrc/napi/device*.cc. A number where an object is expected is a status. */
export interface DeviceBinding {
  /** Whether the system's loader finds a library of this name. */
  probeLibrary(name: string): boolean;
  /** How many devices, or -1 and lastError. */
  deviceCount(backend: number): number;
  deviceInfo(backend: number, ordinal: number): FoundDevice | number;
  /** Kernel, blocks a row, those that are best, rows at a time: rlsd_rows of csrc/include/rlsd/rlsd.h. */
  deviceRows(
    backend: number,
    ordinal: number,
    vocab: number,
    dtype: number,
    objective: Float64Array,
  ): readonly [kernel: number, blocks: number, preferredBlocks: number, atOnce: number] | number;
  deviceAllocate(backend: number, ordinal: number, bytes: number): DeviceHandle | number;
  /** Memory that another library owns; bytes below 0: a stream. */
  deviceBorrow(backend: number, ordinal: number, bytes: number, pointer: bigint): DeviceHandle | number;
  /** Memory of another process. */
  deviceOpen(backend: number, ordinal: number, bytes: number, handle: Uint8Array): DeviceHandle | number;
  deviceExport(memory: DeviceHandle, handle: Uint8Array): number;
  devicePointer(handle: DeviceHandle): bigint | number;
  /** A part of memory; who reads it reads the report first, and gets what the call that fills it found wrong. */
  deviceView(
    memory: DeviceHandle,
    offset: number,
    bytes: number,
    report: DeviceHandle | undefined,
  ): DeviceHandle | number;
  /** Lets go of it: it is freed when no call and no view uses it. */
  deviceRelease(handle: DeviceHandle): number;
  /** `data` may change when this returns. */
  deviceWrite(memory: DeviceHandle, stream: DeviceHandle | undefined, data: HostBytes): number;
  deviceClear(memory: DeviceHandle): number;
  /** Waits for the stream; an empty array only waits. */
  deviceRead(memory: DeviceHandle, stream: DeviceHandle | undefined, data: HostBytes): number;
  /** On the queue's thread, after what the stream holds now. */
  deviceDownload(memory: DeviceHandle, stream: DeviceHandle | undefined, data: HostBytes): number | Promise<Outcome>;
  deviceUpload(memory: DeviceHandle, stream: DeviceHandle | undefined, data: HostBytes): number | Promise<Outcome>;
  /** How the call that fills the report went; writes its statistics. */
  deviceReport(report: DeviceHandle, stats: Float64Array): number | Promise<Outcome>;
  streamCreate(backend: number, ordinal: number): DeviceHandle | number;
  streamSynchronize(stream: DeviceHandle): number | Promise<Outcome>;
  streamWait(stream: DeviceHandle, other: DeviceHandle): number;
  /** A status, or a promise of an outcome when meta asks for a queued call. */
  devicePolicyLoss(...args: DevicePolicyLossArguments): number | Promise<Outcome>;
  deviceTokenLogProbs(...args: DeviceTokenLogProbsArguments): number | Promise<Outcome>;
}
