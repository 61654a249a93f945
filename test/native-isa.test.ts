import { spawnSync } from "node:child_process";
import { checkInstructionSet, native } from "../lib/native/load.js";
import { cliArgs } from "./support/cli.js";

describe("RLSD_ISA", () => {
  const doctor = (isa: string | undefined) => {
    const { RLSD_ISA: _, ...others } = process.env;
    const env = { ...others, ...(isa !== undefined && { RLSD_ISA: isa }) };
    const { stdout, stderr, status } = spawnSync(process.execPath, cliArgs(["doctor"]), { encoding: "utf8", env });
    return { status, stderr, used: /^cpu: available, \d+ threads, (\w+)/m.exec(stdout)?.[1] };
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
