import { child } from "./support/child.js";
import { emulated, Gate, withEmulatedCuda } from "./support/emulated-cuda.js";

emulated.describe("a process with work on a device", () => {
  const library = withEmulatedCuda();

  /** What the named case of device-child.ts prints, with a gate of its own. */
  async function act(name: string, variables: Record<string, string | undefined> = {}): Promise<unknown> {
    using held = new Gate();
    const device = { RLSD_CUDA_LIBRARY: library(), RLSD_EMULATION_GATE: held.path, RLSD_CUDA_EXPERIMENTAL: "1" };
    return await child("device-child.ts", { ...device, ...variables }, name);
  }

  it("may exit in the middle of calls and copies, without waiting for the device", async () => {
    expect(await act("exit")).toBe("pending");
    expect(await act("uncaught")).toBe("pending");
  });

  it("may exit when memory was let go of that the device still writes", async () => {
    expect(await act("collected")).toBe("collected");
  });

  it("frees what it disposes when the device has done its work with it", async () => {
    expect(await act("dispose")).toBe(false);
  });

  it("puts later work behind the part of a failed call that the device took", async () => {
    const failing = { RLSD_EMULATION_FAIL_LAUNCH: "3" };
    expect(await act("partly", failing)).toEqual([expect.stringContaining("(98"), false]);
  });

  it("makes a context on no device that it does not use, and says what is free where it has one", async () => {
    const devices = { RLSD_EMULATION_DEVICES: "2" };
    const after = [null, expect.any(Number)];
    expect(await act("contexts", devices)).toEqual([[null, null], after, ["number", "number"], "cuda:1"]);
  });

  it("loses no memory, call after call", async () => {
    expect(await act("memory")).toBe(0);
  });

  it("lives until its queued calls are done", async () => {
    expect(await act("natural")).toBe(4);
  });

  it("goes on when a worker is terminated in the middle, whose memory it gets back", async () => {
    expect(await act("terminate")).toEqual([true, true]);
  });

  it("is refused kernels that have not passed on a GPU, unless told otherwise", async () => {
    const refusal = (kernel: string) =>
      expect.stringMatching(`^ERR_RLSD_UNSUPPORTED .*${kernel}.*RLSD_CUDA_EXPERIMENTAL`);
    const answers = [refusal("policy-tokens"), refusal("policy-tokens"), refusal("rows-plain"), true];
    expect(await act("refused", { RLSD_CUDA_EXPERIMENTAL: undefined })).toEqual(answers);
  });
});
