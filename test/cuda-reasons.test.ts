import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { child } from "./support/child.js";
import { compiler, emulatedCudaLibrary, emulationCompiler } from "./support/cpu-library.js";

const root = join(__dirname, "..");
const cxx = compiler();
const temporary = mkdtempSync(join(tmpdir(), "rlsd-cuda-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** A folder in which the system's loader finds a libcuda.so.1 that has nothing in it. */
function emptyDriver(): string {
  const folder = join(temporary, "driver");
  mkdirSync(folder, { recursive: true });
  const source = join(folder, "nothing.c");
  writeFileSync(source, "int nothing;\n");
  execFileSync(cxx!, ["-shared", "-fPIC", "-o", join(folder, "libcuda.so.1"), source]);
  return folder;
}

describe("without a usable CUDA", () => {
  it("names a library that is not there, and goes on", async () => {
    const answer = await child("cuda-child.ts", { RLSD_CUDA_LIBRARY: "/nowhere/librlsd_cuda.so" });
    expect(answer).toMatchObject({ available: false, reason: "not-built" });
  });

  it("says why a file that is no library cannot be opened", async () => {
    const answer = await child("cuda-child.ts", { RLSD_CUDA_LIBRARY: join(root, "package.json") });
    expect(answer).toMatchObject({
      available: false,
      reason: "not-loadable",
      message: expect.stringContaining("package.json"),
    });
  });
});

describe("the library that nvcc built", () => {
  const built = join(root, "build/Release/librlsd_cuda.so");
  const hasDriver = existsSync("/dev/nvidiactl") || existsSync("/proc/driver/nvidia");
  const missing = !existsSync(built)
    ? "npm run build:cuda has not made it"
    : hasDriver
      ? "this machine has a driver"
      : undefined;
  if (missing !== undefined) process.stdout.write(`not run: librlsd_cuda.so without a driver (${missing})\n`);
  const there = missing === undefined ? it : it.skip;

  there("tells no driver from one that it is too new for", async () => {
    expect(await child("cuda-child.ts", { RLSD_CUDA_LIBRARY: undefined })).toMatchObject({ reason: "no-driver" });
    expect(await child("cuda-child.ts", { RLSD_CUDA_LIBRARY: built })).toMatchObject({ reason: "no-driver" });
    const old = { RLSD_CUDA_LIBRARY: built, LD_LIBRARY_PATH: emptyDriver() };
    const message = expect.stringContaining("cudaErrorInsufficientDriver (35, ");
    if (cxx !== undefined)
      expect(await child("cuda-child.ts", old)).toMatchObject({ reason: "driver-too-old", message });
  });

  there("is found beside a prebuilt addon and in the build's folder", async () => {
    const release = join(temporary, "prebuilt", "build", "Release");
    mkdirSync(release, { recursive: true });
    copyFileSync(join(root, "build/Release/rlsd.node"), join(release, "rlsd.node"));
    const env = { RLSD_CUDA_LIBRARY: undefined, RLSD_PREBUILD: join(temporary, "prebuilt") };
    const withDriver = { ...env, ...(cxx === undefined ? {} : { LD_LIBRARY_PATH: emptyDriver() }) };
    const reason = (usual: string) => (cxx === undefined ? "no-driver" : usual);
    expect(await child("cuda-child.ts", withDriver)).toMatchObject({ reason: reason("driver-too-old") });
    writeFileSync(join(release, "librlsd_cuda.so"), "");
    expect(await child("cuda-child.ts", withDriver)).toMatchObject({ reason: reason("not-loadable") });
    expect(await child("cuda-child.ts", env)).toMatchObject({ reason: "no-driver" }); // not even opened
  });
});

const emulator = emulationCompiler();
const emulated = emulator === undefined ? describe.skip : describe;
if (emulator === undefined)
  process.stdout.write("not run: what an emulated device answers (no C++ compiler, or one without makecontext)\n");

emulated("a device, or what stands in its way", () => {
  let library = "";
  beforeAll(async () => {
    library = await emulatedCudaLibrary(emulator!);
  }, 600_000);

  const seen = (env: Record<string, string>, ...rest: string[]) =>
    child("cuda-child.ts", { RLSD_CUDA_LIBRARY: library, ...env }, ...rest);

  it("answers for a driver that is too old, for none and for no device", async () => {
    const old = { RLSD_EMULATION_COUNT_ERROR: "35", LD_LIBRARY_PATH: emptyDriver() };
    const tooOld = { available: false, reason: "driver-too-old", message: expect.stringContaining("(35, ") };
    expect(await seen(old)).toMatchObject(tooOld);
    expect(await seen({ RLSD_EMULATION_DEVICES: "0" })).toMatchObject({ available: false, reason: "no-device" });
  });

  it("says in the runtime's words what else keeps it from being used, and looks again", async () => {
    const message = expect.stringContaining("cudaErrorSystemNotReady (802, ");
    const passing = await seen({ RLSD_EMULATION_COUNT_ERROR: "802" });
    expect(passing).toEqual({ available: false, reason: "not-usable", message, again: true });
    const lasting = await seen({ RLSD_EMULATION_COUNT_ERROR: "999" });
    expect(lasting).toMatchObject({ reason: "not-usable", again: false, refusal: expect.stringMatching(/999, /) });
  });

  it("refuses devices that the kernels cannot run on, and those alone", async () => {
    const old = await seen({ RLSD_EMULATION_COMPUTE: "7" });
    const message = expect.stringMatching(/cuda:0 \(emulated\) has compute capability 7\.0, but 8\.0 or newer/);
    expect(old).toMatchObject({ available: false, reason: "device-too-old", message });
    const mixed = { RLSD_EMULATION_COMPUTE: "7,9", RLSD_EMULATION_DEVICES: "2" };
    const first = { name: "emulated", message };
    expect(await seen(mixed)).toMatchObject({
      available: true,
      devices: [first, { name: "emulated" }],
      refusal: message,
    });
    const second = (await seen(mixed, "1")) as { refusal?: string };
    expect(second.refusal).toBeUndefined();
  });

  it("lists a device that does not say what it is, in its place", async () => {
    const env = { RLSD_EMULATION_BROKEN_DEVICE: "0", RLSD_EMULATION_DEVICES: "2" };
    const message = expect.stringMatching(/cuda:0: Could not read the device: cudaErrorInvalidDevice \(101/);
    expect(await seen(env)).toMatchObject({ devices: [{ message }, { name: "emulated" }], refusal: message });
    expect(((await seen(env, "1")) as { refusal?: string }).refusal).toBeUndefined();
    const alone = await seen({ RLSD_EMULATION_BROKEN_DEVICE: "0" });
    expect(alone).toMatchObject({ available: false, reason: "not-usable", message });
  });
});
