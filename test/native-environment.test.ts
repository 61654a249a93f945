import { spawnSync } from "node:child_process";
import { checkInstructionSet, native } from "../lib/native/load.js";
import { cliArgs } from "./support/cli.js";

/** What `rlsd doctor` finds with this variable, or without it. */
function doctorWith(name: string, value: string | undefined) {
  const { [name]: _, ...others } = process.env;
  const env = { ...others, ...(value !== undefined && { [name]: value }) };
  const { stdout, stderr, status } = spawnSync(process.execPath, cliArgs(["doctor"]), { encoding: "utf8", env });
  const [, threads, used] = /^cpu: available, (\d+) threads?, (\w+)/m.exec(stdout) ?? [];
  return { status, stderr, threads, used };
}

describe("RLSD_ISA", () => {
  const doctor = (isa: string | undefined) => {
    const { threads: _, ...found } = doctorWith("RLSD_ISA", isa);
    return found;
  };
  const [, has] = native.instructionSets();

  test.each([...has, undefined, ""])("%s is what the kernels use, and nothing is the widest", (isa) => {
    expect(doctor(isa)).toEqual({ status: 0, stderr: "", used: isa || has[0] });
  });

  test.each(["avx", "AVX2", "x".repeat(500)])("%s is an error at load that says what there is", (isa) => {
    const { status, stderr, used } = doctor(isa);
    expect([status, used]).toEqual([1, undefined]);
    expect(stderr).toContain(`RLSD_ISA is "${isa.slice(0, 63)}": expected one of`);
    for (const name of has) expect(stderr).toContain(`"${name}"`);
  });

  test("more than the processor has is one, too", () => {
    expect(() => checkInstructionSet(["portable", ["avx2", "portable"], "avx512"])).toThrow(
      'RLSD_ISA is "avx512": expected one of "avx2", "portable", which this processor has, or no RLSD_ISA for the first',
    );
    expect(() => checkInstructionSet(["avx2", ["avx2", "portable"], undefined])).not.toThrow();
  });
});

describe("RLSD_NUM_THREADS", () => {
  const doctor = (threads: string | undefined) => doctorWith("RLSD_NUM_THREADS", threads);

  test.each(["1", "3", "256"])("%s is the size of the pool", (threads) => {
    expect(doctor(threads)).toMatchObject({ status: 0, stderr: "", threads });
  });

  test("nothing is the CPUs that the process may run on", () => {
    const [unset, empty] = [undefined, ""].map(doctor);
    expect(unset).toMatchObject({ status: 0, stderr: "", threads: expect.stringMatching(/^[1-9]/) });
    expect(empty).toEqual(unset);
  });

  test.each(["abc", "-1", "0", "257", "1e9", "3.5", " 4", "4 threads", "9".repeat(80)])(
    "%s is an error at load that says what it may be",
    (threads) => {
      const { status, stderr, used } = doctor(threads);
      expect([status, used]).toEqual([1, undefined]);
      expect(stderr).toContain(`RLSD_NUM_THREADS is "${threads.slice(0, 63)}": expected an integer from 1 to 256`);
    },
  );
});
