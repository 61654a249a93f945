import { performance } from "node:perf_hooks";
import type { Numbers } from "./metrics.js";

/** Milliseconds of each stage. */
export class Stopwatch {
  readonly times: Numbers = {};
  private last = performance.now();
  private readonly start = this.last;

  lap(name: string): void {
    const now = performance.now();
    this.times[name] = (this.times[name] ?? 0) + (now - this.last);
    this.last = now;
  }

  get total(): number {
    return this.last - this.start;
  }
}
