import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SHARE_ENV, Worker } from "node:worker_threads";
import { emulatedCudaLibrary, emulationCompiler } from "./cpu-library.js";

/**
 * Sets variables where native code reads them, or removes those that are undefined: jest's own `process.env` is a copy,
 * that of a worker which shares it is not.
 */
async function setNativeEnv(values: Record<string, string | undefined>): Promise<void> {
  const code = `for (const [name, value] of ${JSON.stringify(Object.entries(values))}) {
    if (value === null) delete process.env[name];
    else process.env[name] = value;
  }`;
  const worker = new Worker(code, { eval: true, env: SHARE_ENV });
  await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
}

/** A library on whose device the tests run instead of the emulated one. */
const given = process.env.RLSD_TEST_CUDA_LIBRARY;

if (given !== undefined) process.stdout.write("not run: what only an emulated device shows (RLSD_TEST_CUDA_LIBRARY)\n");

/** Can anything of a device be tested here? */
export const hasDevice = given !== undefined || emulationCompiler() !== undefined;

/** `describe` and `it` for what only an emulated device can show: other devices than there are, a device held still. */
export const emulated = {
  describe: given === undefined && hasDevice ? describe : describe.skip,
  it: given === undefined ? it : it.skip,
};

/**
 * The tests of this file use the library whose kernels run on the host, built when it has to be, or the one that
 * RLSD_TEST_CUDA_LIBRARY names. `variables` are native code's meanwhile. The returned function gives the library's path.
 */
export function withEmulatedCuda(variables: Record<string, string> = {}): () => string {
  const all = { RLSD_CUDA_EXPERIMENTAL: "1", ...(given === undefined ? variables : {}) };
  let library = "";
  beforeAll(async () => {
    library = given ?? (await emulatedCudaLibrary(emulationCompiler()!));
    process.env.RLSD_CUDA_LIBRARY = library;
    await setNativeEnv(all);
  }, 600_000);
  // The next file may be run by this process.
  afterAll(() => setNativeEnv(Object.fromEntries(Object.keys(all).map((name) => [name, undefined]))));
  return () => library;
}

/**
 * Holds the emulated device still while it is closed: work that is enqueued then waits, or only that on the streams that
 * were made. Opened when it goes.
 */
export class Gate implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "rlsd-gate-"));
  readonly path = join(this.#folder, "closed");

  close(which: "" | "made" = ""): void {
    writeFileSync(this.path, which);
  }

  open(): void {
    rmSync(this.path, { force: true });
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
