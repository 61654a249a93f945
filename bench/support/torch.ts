/** PyTorch as a rival: a Python process that answers one JSON line with another. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** A Python that can import `modules`: RLSD_BENCH_PYTHON, else python3; undefined where there is none. */
export function findPython(modules = "torch"): string | undefined {
  const python = process.env.RLSD_BENCH_PYTHON ?? "python3";
  return spawnSync(python, ["-c", `import ${modules}`], { stdio: "ignore" }).status === 0 ? python : undefined;
}

export class Rival implements Disposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(python: string, script: string) {
    this.#child = spawn(python, [join(import.meta.dirname, script)], { stdio: ["pipe", "pipe", "inherit"] });
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
