import { RlsdError } from "../errors.js";
import type { DeviceHandle } from "../native/device-binding.js";
import { native } from "../native/load.js";
import { throwUnlessDone, throwUnlessOk } from "../native/status.js";
import type { Tensor } from "./base.js";
import { allocateOnDevice, type DevicePlace, DeviceTensor, handleOrThrow } from "./device.js";
import { disposeAfter, disposeAll } from "./dispose.js";
import { STAT_NAMES } from "./stats.js";

/** DeviceReport of csrc/napi/device_copy.h: statistics, outcome, loss. */
const REPORT_BYTES = 232;
const LOSS_OFFSET = 224;
/** Each array starts at a multiple of this. */
const ALIGNMENT = 256;

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** Numbers of one call, f32. */
type Result = DeviceTensor & Tensor<"f32">;

/**
 * Device memory for the (N) results of one call and for its report: one allocation. Whoever reads a result reads the
 * report first, and gets the error that the call could not throw.
 */
export class DeviceResults {
  /** For the native call. */
  readonly report: DeviceHandle;
  readonly #memory: DeviceTensor;
  readonly #stride: number;
  readonly #n: number;
  readonly #place: DevicePlace;
  readonly #made: DeviceTensor[] = [];
  #used = 0;
  #disposed = false;

  constructor(place: DevicePlace, arrays: number, n: number) {
    this.#n = n;
    this.#place = place;
    this.#stride = aligned(4 * n);
    const bytes = aligned(REPORT_BYTES) + arrays * this.#stride;
    this.#memory = allocateOnDevice([bytes / 4], "f32", place);
    this.report = handleOrThrow(native.deviceView(this.#memory.handle, 0, REPORT_BYTES, undefined));
  }

  /** The next array, (N) f32. */
  next(): Result {
    const offset = aligned(REPORT_BYTES) + this.#stride * this.#used++;
    const made = native.deviceView(this.#memory.handle, offset, 4 * this.#n, this.report);
    return this.#keep(new DeviceTensor(handleOrThrow(made), this.#place, [this.#n], "f32") as Result);
  }

  /** The loss, () f32; after the call was made. */
  loss(): Result {
    const made = native.deviceView(this.report, LOSS_OFFSET, 4, this.report);
    return this.#keep(new DeviceTensor(handleOrThrow(made), this.#place, [], "f32") as Result);
  }

  /** A new tensor that the call wrote, as a result of it; takes the tensor's place. */
  adopt(t: DeviceTensor): DeviceTensor {
    const made = native.deviceView(t.handle, 0, t.byteLength, this.report);
    const result = new DeviceTensor(handleOrThrow(made), t.place, t.shape, t.dtype);
    t[Symbol.dispose]();
    return this.#keep(result);
  }

  /** Runs `make`: from then on the results alone keep the memory, or, when it throws, nothing does. */
  keep<T>(make: () => T): T {
    let made: T;
    try {
      made = make();
    } catch (error) {
      return disposeAfter(error, this, this.#memory);
    }
    this.#memory[Symbol.dispose]();
    return made;
  }

  /** The statistics, when the call is done; throws what it found wrong. */
  async read(): Promise<Float64Array> {
    if (this.#disposed) throw new RlsdError("ERR_RLSD_DISPOSED", "These results were disposed before they were read.");
    const stats = new Float64Array(STAT_NAMES.length);
    throwUnlessDone(await native.deviceReport(this.report, stats));
    return stats;
  }

  /** Disposes the tensors that were made here; not those of the caller. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const report = { [Symbol.dispose]: () => throwUnlessOk(native.deviceRelease(this.report)) };
    disposeAll([...this.#made, report]);
  }

  #keep<T extends DeviceTensor>(t: T): T {
    this.#made.push(t);
    return t;
  }
}
