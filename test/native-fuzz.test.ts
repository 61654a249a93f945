import { execFileSync } from "node:child_process";
import { compiler, cpuLibrary, testProgram } from "./support/cpu-library.js";

const cxx = compiler();
if (cxx === undefined) process.stderr.write("not run: native-fuzz (no C++ compiler)\n");

(cxx === undefined ? test.skip : test)(
  "what the fuzzer takes for right is not refused, so that it fuzzes more than the checks of arguments",
  async () => {
    const library = await cpuLibrary(cxx!);
    const program = await testProgram(cxx!, "fuzz_run.cc", ["csrc/test/fuzz_losses.cc"]);
    const finished = Number(execFileSync(program, [library], { encoding: "utf8" }));
    // Three calls of 400 inputs, of which three in four are right.
    expect(finished).toBeGreaterThan(800);
    expect(finished).toBeLessThan(1200);
  },
  600_000,
);
