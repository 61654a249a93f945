import { spawnSync } from "node:child_process";
import { examine } from "../lib/cli/doctor-report.js";
import { backendInfo } from "../lib/index.js";
import { checkInstructionSet, native } from "../lib/native/load.js";
import { cliArgs } from "./support/cli.js";

describe("RLSD_ISA", () => {
  const doctor = (isa: string | undefined) => {
    const { RLSD_ISA: _, ...others } = process.env;
    const env = { ...others, ...(isa !== undefined && { RLSD_ISA: isa }) };
    const { stdout, stderr, status } = spawnSync(process.execPath, cliArgs(["doctor"]), { encoding: "utf8", env });
    return { status, stderr, used: /^cpu: available, \d+ threads, (.*)$/m.exec(stdout)?.[1] };
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

describe("rlsd doctor", () => {
  const report = examine();

  test("computes the worked example of docs/maths.md", () => {
    expect(report.example.correct).toBe(true);
    const [, , right, , , wrong] = report.example.tokens;
    expect(right).toMatchObject({ token: "=28" });
    expect(right?.weight).toBeCloseTo(1.2, 6);
    expect(right?.advantage).toBeCloseTo(Math.SQRT1_2 * 1.1, 3);
    expect(wrong?.advantage).toBeCloseTo(-Math.SQRT1_2 * 1.1, 3);
    expect(Math.sign(wrong?.gradient ?? 0)).toBe(1);
  });

  test("names each backend, and why one is not available", () => {
    expect(report.backends).toEqual(backendInfo());
    expect(report.backends.cpu).toMatchObject({ available: true });
    for (const backend of Object.values(report.backends)) {
      if (!backend.available) expect(backend.reason).toMatch(/\w/);
    }
  });
});
