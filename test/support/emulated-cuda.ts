import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SHARE_ENV, Worker } from "node:worker_threads";
import { compiler, emulatedCudaLibrary } from "./cpu-library.js";

/** Sets variables where native code reads them: jest's own `process.env` is a copy, that of a worker which shares it is not. */
export async function setNativeEnv(values: Record<string, string>): Promise<void> {
  const code = `Object.assign(process.env, ${JSON.stringify(values)})`;
  const worker = new Worker(code, { eval: true, env: SHARE_ENV });
  await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
}

/** Builds the library whose kernels run on the host, lets this process use it, and returns its path. */
export async function useEmulatedCuda(): Promise<string> {
  const library = await emulatedCudaLibrary(compiler()!);
  process.env.RLSD_CUDA_LIBRARY = library;
  await setNativeEnv({ RLSD_CUDA_EXPERIMENTAL: "1" });
  return library;
}

/** Holds the emulated device still while it is closed: work that is enqueued then waits. Opened when it goes. */
export class Gate implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "rlsd-gate-"));
  readonly path = join(this.#folder, "closed");

  close(): void {
    writeFileSync(this.path, "");
  }

  open(): void {
    rmSync(this.path, { force: true });
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
