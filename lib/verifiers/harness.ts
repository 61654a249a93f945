/**
 * Judges samples in killable processes. One sample that hangs, crashes or eats memory costs that sample a verdict and the
 * pool one process; every other sample is judged as if it had not been there.
 */
import { RlsdError } from "../errors.js";
import { onAbort } from "../on-abort.js";
import { type Fault, failedStart, faultVerdict } from "./fault.js";
import type { HarnessOptions, HarnessStats } from "./harness-options.js";
import { type Task, TaskQueue, type Waiter } from "./task-queue.js";
import type { Sample, Verdict } from "./verifier.js";
import type { FromWorker, WorkerSpec } from "./wire.js";
import { type Ended, WorkerProcess } from "./worker-process.js";

interface Slot<S, V> {
  readonly process: WorkerProcess;
  ready: boolean;
  /** Sent and not yet judged, oldest first: the worker is busy with the first one. */
  readonly tasks: Task<S, V>[];
  timer: NodeJS.Timeout | undefined;
  /** Why it was killed and which sample is to blame, if any. */
  doomed: { readonly fault: Fault | "abort"; readonly task: Task<S, V> | undefined } | undefined;
  failure: RlsdError | undefined;
}

/** Sent ahead so that a worker never waits for the parent: about 1.7 times the throughput of 1 on cheap samples; 32 adds nothing. */
const PIPELINE = 8;
const MEMORY_POLL_MS = 50;
/** Deaths in a row before "ready" after which the verifier, not chance, is to blame. */
const START_ATTEMPTS = 3;

/** `S`: what is judged; `V`: what is said of it. A sample that a worker could not judge has a verdict without a reward. */
export class Harness<S extends { readonly id: string } = Sample, V = Verdict> {
  readonly #spec: WorkerSpec;
  readonly #options: HarnessOptions;
  /** What judges, in messages. */
  readonly #what: string;
  readonly #queue = new TaskQueue<S, V | Verdict>();
  readonly #slots = new Set<Slot<S, V | Verdict>>();
  /** Who waits for a first worker to be ready. */
  readonly #starts = new Set<Waiter<void>>();
  readonly #counts = { judged: 0, timeout: 0, crash: 0, "out-of-memory": 0, aborted: 0, started: 0 };
  #pending = 0;
  #nextId = 0;
  #failedStarts = 0;
  #watch: NodeJS.Timeout | undefined;
  #disposed = false;
  #onEmpty: (() => void) | undefined;

  constructor(spec: WorkerSpec, options: HarnessOptions, what = "verifier") {
    this.#what = what;
    this.#spec = spec;
    this.#options = options;
  }

  get stats(): HarnessStats {
    const { judged, timeout, crash, aborted, started } = this.#counts;
    const outOfMemory = this.#counts["out-of-memory"];
    const [workersAlive, waiting] = [this.#slots.size, this.#queue.length];
    return {
      judged,
      timeouts: timeout,
      crashes: crash,
      outOfMemory,
      aborted,
      workersStarted: started,
      workersAlive,
      waiting,
    };
  }

  verify(sample: S, signal: AbortSignal): Promise<V | Verdict> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#disposed) return Promise.reject(this.#gone("has been disposed of"));
    if (this.#queue.length >= this.#options.maxQueue) {
      const message = `${this.#options.maxQueue} samples are waiting for the ${this.#what}; await earlier ones or raise "maxQueue".`;
      return Promise.reject(new RlsdError("ERR_RLSD_VERIFIER_QUEUE", message));
    }
    return this.#wait(signal, (waiter: Waiter<V | Verdict>) => {
      const task: Task<S, V | Verdict> = Object.assign(waiter, { id: this.#nextId++, sample });
      this.#queue.push(task);
      this.#feed();
      return () => this.#abort(task, signal.reason);
    });
  }

  /** A promise for what `begin` sets going; until it settles, workers keep the process alive. `begin` returns how to abort. */
  #wait<T>(signal: AbortSignal | undefined, begin: (waiter: Waiter<T>) => () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      let forget = () => {};
      const finish = () => {
        waiter.done = true;
        forget();
        if (--this.#pending === 0) this.#rest();
      };
      const waiter: Waiter<T> = {
        done: false,
        resolve: (value) => {
          finish();
          resolve(value);
        },
        reject: (reason) => {
          finish();
          reject(reason);
        },
      };
      if (this.#pending++ === 0) this.#wake();
      const abort = begin(waiter);
      if (signal !== undefined && !waiter.done) forget = onAbort(signal, abort);
    });
  }

  /** Resolves once a worker is ready to judge; rejects with what keeps them from being so, or with the signal's reason. */
  start(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if ([...this.#slots].some((slot) => slot.ready)) return Promise.resolve();
    if (this.#disposed) return Promise.reject(this.#gone("has been disposed of"));
    return this.#wait(signal, (start: Waiter<void>) => {
      this.#starts.add(start);
      this.#feed();
      return () => this.#abortStart(start, signal?.reason);
    });
  }

  #settleStarts(settle: (start: Waiter<void>) => void): void {
    for (const start of this.#starts) {
      this.#starts.delete(start);
      settle(start);
    }
  }

  /** A worker for which nobody waits any more does not go on starting. */
  #abortStart(start: Waiter<void>, reason: unknown): void {
    this.#starts.delete(start);
    start.reject(reason);
    if (this.#pending > 0) return;
    for (const slot of this.#slots) if (!slot.ready) this.#doom(slot, "abort", undefined);
  }

  /** Kills every worker and waits until each is reaped. Samples that still wait reject with ERR_RLSD_DISPOSED. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#rejectAll(this.#gone("was disposed of before it had an answer"));
    if (this.#slots.size === 0) return;
    const empty = new Promise<void>((resolve) => {
      const previous = this.#onEmpty;
      this.#onEmpty = () => {
        previous?.();
        resolve();
      };
    });
    for (const slot of this.#slots) {
      slot.process.hold(true);
      this.#doom(slot, "abort", undefined);
    }
    await empty;
  }

  #gone(why: string): RlsdError {
    return new RlsdError("ERR_RLSD_DISPOSED", `The ${this.#what} ${why}.`);
  }

  #rejectAll(error: unknown): void {
    const inFlight = [...this.#slots].flatMap((slot) => slot.tasks);
    for (const task of [...inFlight, ...this.#queue.drain()]) if (!task.done) task.reject(error);
    this.#settleStarts((start) => start.reject(error));
  }

  #abort(task: Task<S, V | Verdict>, reason: unknown): void {
    if (task.done) return;
    this.#counts.aborted++;
    task.reject(reason);
    for (const slot of this.#slots) if (slot.tasks[0] === task) this.#doom(slot, "abort", task);
  }

  #feed(): void {
    const waiting = this.#queue.length + this.#starts.size;
    const idle = [...this.#slots].filter((slot) => slot.doomed === undefined && slot.tasks.length === 0).length;
    const missing = Math.min(this.#options.workers - this.#slots.size, waiting - idle);
    for (let i = 0; i < missing; i++) this.#spawn();
    // Breadth first: a second sample is sent ahead only when every worker has a first one.
    for (let depth = 1; depth <= PIPELINE; depth++) {
      for (const slot of this.#slots) {
        if (!slot.ready || slot.doomed !== undefined || slot.tasks.length >= depth) continue;
        const task = this.#queue.take();
        if (task === undefined) return;
        this.#send(slot, task);
      }
    }
  }

  #send(slot: Slot<S, V | Verdict>, task: Task<S, V | Verdict>): void {
    try {
      slot.process.send({ kind: "judge", id: task.id, sample: task.sample });
    } catch (error) {
      const message = `The sample ${task.sample.id} cannot be sent to a worker: ${String(error)}. Rows hold plain data only.`;
      task.reject(new RlsdError("ERR_RLSD_VERIFIER_ROW", message, { cause: error }));
      return;
    }
    slot.tasks.push(task);
    if (slot.tasks.length === 1) this.#arm(slot);
  }

  #arm(slot: Slot<S, V | Verdict>): void {
    clearTimeout(slot.timer);
    const task = slot.tasks[0];
    if (task === undefined) return;
    // When this thread was busy past the deadline, the verdict may have come and wait to be read: timers run before it is.
    const expire = () => setImmediate(() => slot.tasks[0] === task && this.#doom(slot, "timeout", task));
    slot.timer = setTimeout(expire, this.#options.deadlineMs);
  }

  #spawn(): void {
    this.#counts.started++;
    const slot: Slot<S, V | Verdict> = {
      process: new WorkerProcess(this.#spec, Math.ceil(this.#options.memoryMb * 0.75), {
        message: (message) => this.#onMessage(slot, message),
        ended: (how) => this.#onEnded(slot, how),
      }),
      ready: false,
      tasks: [],
      timer: setTimeout(
        () => setImmediate(() => slot.ready || this.#doom(slot, "timeout", undefined)),
        this.#options.startMs,
      ),
      doomed: undefined,
      failure: undefined,
    };
    this.#slots.add(slot);
  }

  #doom(slot: Slot<S, V | Verdict>, fault: Fault | "abort", task: Task<S, V | Verdict> | undefined): void {
    slot.doomed ??= { fault, task };
    clearTimeout(slot.timer);
    slot.process.kill();
  }

  #onMessage(slot: Slot<S, V | Verdict>, message: FromWorker): void {
    if (message.kind === "ready") {
      slot.ready = true;
      this.#failedStarts = 0;
      clearTimeout(slot.timer);
      this.#settleStarts((start) => start.resolve());
      if (this.#pending === 0) slot.process.hold(false);
    } else if (message.kind === "failed") {
      slot.failure = new RlsdError(message.code, message.message);
      this.#doom(slot, "crash", undefined);
      return;
    } else {
      const at = slot.tasks.findIndex((task) => task.id === message.id);
      const [task] = at < 0 ? [] : slot.tasks.splice(at, 1);
      if (at === 0 && slot.doomed === undefined) this.#arm(slot);
      if (task !== undefined && !task.done) {
        this.#counts.judged++;
        task.resolve(message.verdict as V | Verdict);
      }
    }
    this.#feed();
  }

  #onEnded(slot: Slot<S, V | Verdict>, how: Ended): void {
    clearTimeout(slot.timer);
    this.#slots.delete(slot);
    const { doomed } = slot;
    const blamed = doomed === undefined ? slot.tasks[0] : doomed.task;
    const fault = doomed === undefined ? (how.heapExhausted ? "out-of-memory" : "crash") : doomed.fault;
    if (blamed !== undefined && !blamed.done && slot.tasks.includes(blamed) && fault !== "abort") {
      this.#counts[fault]++;
      blamed.resolve(faultVerdict(fault, how, this.#options));
    }
    this.#queue.putBack(slot.tasks.filter((task) => !task.done));
    if (!slot.ready && fault !== "abort") this.#onFailedStart(slot, fault, how);
    if (this.#slots.size === 0) this.#onEmpty?.();
    if (!this.#disposed) this.#feed();
  }

  #onFailedStart(slot: Slot<S, V | Verdict>, fault: Fault, how: Ended): void {
    if (slot.failure === undefined && ++this.#failedStarts < START_ATTEMPTS) return;
    this.#failedStarts = 0;
    this.#rejectAll(slot.failure ?? failedStart(fault, how, this.#what, this.#options));
  }

  /** From rest to work: workers and the memory watch keep the process alive. */
  #wake(): void {
    for (const slot of this.#slots) slot.process.hold(true);
    this.#watch ??= setInterval(() => {
      for (const slot of this.#slots) {
        const used = slot.doomed === undefined ? slot.process.residentMb() : undefined;
        if (used !== undefined && used > this.#options.memoryMb) this.#doom(slot, "out-of-memory", slot.tasks[0]);
      }
    }, MEMORY_POLL_MS);
  }

  /** From work to rest: an idle pool lets the process exit. */
  #rest(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
    if (!this.#disposed) for (const slot of this.#slots) slot.process.hold(false);
  }
}
