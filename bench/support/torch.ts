/** PyTorch as a rival: a Python process that answers one JSON line with another. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** A Python that can import `modules`: RLSD_BENCH_PYTHON, else python3; undefined where there is none. */
export function findPython(modules = "torch"): string | undefined {
  const python = process.env.RLSD_BENCH_PYTHON ?? "python3";
  return spawnSync(python, ["-c", `import ${modules}`], { stdio: "ignore" }).status === 0 ? python : undefined;
}

/**
 * What glibc's malloc does with memory that PyTorch gives back. As it comes, it returns large pieces to the system, and every
 * step pays for fresh pages again, several times what it computes; told to, it keeps them, as PyTorch's allocator of GPUs does.
 */
export type FreedMemory = "returned" | "kept";

const MOST = String(2 ** 40);
const ENVIRONMENT: Readonly<Record<FreedMemory, NodeJS.ProcessEnv>> = {
  returned: {},
  kept: { MALLOC_MMAP_THRESHOLD_: MOST, MALLOC_TRIM_THRESHOLD_: MOST },
};

export class Rival implements Disposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(python: string, script: string, freed: FreedMemory = "kept") {
    this.#child = spawn(python, [join(import.meta.dirname, script)], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...ENVIRONMENT[freed] },
    });
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  async ask<T>(request: object): Promise<T> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error("The Python process ended.");
    return JSON.parse(value) as T;
  }

  [Symbol.dispose](): void {
    this.#child.stdin!.end();
  }
}
