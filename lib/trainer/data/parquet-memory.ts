import { getHeapStatistics } from "node:v8";

/** What reading one group of rows may take of Node's heap: beyond its end, Node ends the process. */
export class Memory {
  readonly #most = getHeapStatistics().heap_size_limit * 0.75;
  #left = this.#most;

  /** Bytes that are held until the group is read. */
  take(bytes: number): void {
    this.need(bytes);
    this.#left -= bytes;
  }

  /** Bytes that are held for a moment. */
  need(bytes: number): void {
    if (bytes <= this.#left) return;
    const [needed, most] = [this.#most - this.#left + bytes, this.#most].map((n) => (n / 2 ** 30).toFixed(1));
    throw new Error(
      `reading a group of its rows takes ${needed} GB of memory or more, and there are ${most} for it: write it in smaller groups (row_group_size), or set NODE_OPTIONS=--max-old-space-size to more megabytes`,
    );
  }
}
