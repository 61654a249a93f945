import type { Sample, Verdict } from "./verifier.js";

/** Somebody who waits; settled once. */
export interface Waiter<T> {
  resolve(value: T): void;
  reject(reason: unknown): void;
  done: boolean;
}

/** A sample on its way to a verdict. */
export interface Task<S = Sample, V = Verdict> extends Waiter<V> {
  readonly id: number;
  readonly sample: S;
}

/** Tasks in the order in which they came. Amortised O(1): the consumed front is dropped in blocks. */
export class TaskQueue<S = Sample, V = Verdict> {
  readonly #tasks: Task<S, V>[] = [];
  #head = 0;

  /** How many wait, those included that were settled meanwhile. */
  get length(): number {
    return this.#tasks.length - this.#head;
  }

  push(task: Task<S, V>): void {
    this.#tasks.push(task);
  }

  /** The next task that still waits for a verdict. */
  take(): Task<S, V> | undefined {
    while (this.#head < this.#tasks.length) {
      const task = this.#tasks[this.#head++];
      if (this.#head > 1024 && this.#head * 2 > this.#tasks.length) {
        this.#tasks.splice(0, this.#head);
        this.#head = 0;
      }
      if (task !== undefined && !task.done) return task;
    }
    return undefined;
  }

  /** Tasks that were taken and are to be taken again before all others. */
  putBack(tasks: readonly Task<S, V>[]): void {
    // In the places of consumed ones, of which fewer may be left: none may stay where it would be taken twice.
    const places = Math.min(this.#head, tasks.length);
    this.#head -= places;
    this.#tasks.splice(this.#head, places, ...tasks);
  }

  /** Everything that waits; the queue is empty afterwards. */
  drain(): readonly Task<S, V>[] {
    const waiting = this.#tasks.splice(0).slice(this.#head);
    this.#head = 0;
    return waiting;
  }
}
