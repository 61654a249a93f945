/**
 * One child process and everything in its process group. It is killed by SIGKILL, which no code inside can catch, and it
 * kills itself when this process or this thread is gone (see watchdog.ts), so none outlives its parent.
 */
import { type ChildProcess, fork } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { killGroup, killRest } from "./kill-group.js";
import { type FromWorker, LIFELINE, type ToWorker, type WorkerSpec } from "./wire.js";

const STDERR_KEPT = 4000;

/** A module of this package that a worker loads. Where only the sources are run (tests), the built copy. */
export function workerModule(room: string, name: string): URL {
  const built = new URL(`../${room}/${name}.js`, import.meta.url);
  return existsSync(built) ? built : new URL(`../../dist/${room}/${name}.js`, import.meta.url);
}

const alive = new Set<number>();

function killAll(): void {
  for (const pid of alive) killGroup(pid);
}

/**
 * KiB of a process and its descendants; undefined: it is gone. Where the kernel lists no children, its own. Not from `statm`,
 * which counts pages: how large they are differs between arm64's kernels.
 */
function residentKib(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const own = Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1] ?? 0); // none of a process that has just ended
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim();
    return children === ""
      ? own
      : children.split(" ").reduce((sum, child) => sum + (residentKib(Number(child)) ?? 0), own);
  } catch {
    return undefined;
  }
}

const forked = (oldSpaceMb: number): ChildProcess =>
  fork(fileURLToPath(workerModule("verifiers", "worker")), [], {
    detached: true,
    execArgv: [`--max-old-space-size=${oldSpaceMb}`],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc", "pipe"],
  });

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Last lines that it wrote to its error stream. */
  readonly stderr: string;
  readonly heapExhausted: boolean;
}

interface WorkerEvents {
  message(message: FromWorker): void;
  /** Once, after the last message was delivered and the process was reaped. */
  ended(how: Ended): void;
}

export class WorkerProcess {
  readonly #child: ChildProcess;
  #stderr = "";
  #exit: { code: number | null; signal: NodeJS.Signals | null } | undefined;
  #disconnected = false;

  constructor(spec: WorkerSpec, oldSpaceMb: number, events: WorkerEvents) {
    this.#child = forked(oldSpaceMb);
    const lifeline = this.#child.stdio?.[LIFELINE] as Socket | null | undefined;
    lifeline?.on("error", () => {}).unref();
    const { pid } = this.#child;
    if (pid !== undefined) {
      if (alive.size === 0) process.on("exit", killAll);
      alive.add(pid);
    }
    const settle = () => {
      if (this.#exit === undefined || !this.#disconnected) return;
      const heapExhausted = /heap out of memory|Allocation failed|Array buffer allocation failed/i.test(this.#stderr);
      events.ended({ ...this.#exit, stderr: this.#stderr, heapExhausted });
    };
    const gone = (code: number | null, signal: NodeJS.Signals | null) => {
      if (this.#exit !== undefined) return;
      this.#exit = { code, signal };
      if (pid !== undefined) {
        killRest(pid);
        alive.delete(pid);
        if (alive.size === 0) process.off("exit", killAll);
      }
      this.#child.stderr?.destroy();
      lifeline?.destroy();
      this.#disconnected ||= !this.#child.connected;
      settle();
    };
    this.#child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#stderr = (this.#stderr + chunk).slice(-STDERR_KEPT);
    });
    this.#child.on("message", (message) => events.message(message as FromWorker));
    this.#child.on("disconnect", () => {
      this.#disconnected = true;
      this.kill();
      settle();
    });
    this.#child.on("exit", gone);
    this.#child.on("error", (error) => {
      this.#stderr += String(error);
      if (pid === undefined) {
        this.#disconnected = true;
        gone(null, null);
      }
    });
    this.send({ kind: "start", ...spec });
  }

  send(message: ToWorker): void {
    // A send to a worker that has just died fails in the callback; its end settles the sample.
    if (this.#child.connected) this.#child.send(message, undefined, undefined, () => {});
  }

  kill(): void {
    if (this.#child.pid !== undefined && this.#exit === undefined) killGroup(this.#child.pid);
  }

  /** Whether this worker keeps the parent's event loop alive. */
  hold(held: boolean): void {
    const stderr = this.#child.stderr as (NodeJS.ReadableStream & { ref?(): void; unref?(): void }) | null;
    const method = held ? "ref" : "unref";
    this.#child[method]();
    this.#child.channel?.[method]();
    stderr?.[method]?.();
  }

  /** Resident memory in MiB of it and what it has started; undefined where the system does not say. */
  residentMb(): number | undefined {
    if (process.platform !== "linux" || this.#child.pid === undefined) return undefined;
    const kib = residentKib(this.#child.pid);
    return kib === undefined ? undefined : kib / 1024;
  }
}
