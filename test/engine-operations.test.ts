import { execFileSync } from "node:child_process";
import { compiler, cpuLibrary, testProgram } from "./support/cpu-library.js";

const cxx = compiler();
if (cxx === undefined) process.stderr.write("not run: engine-operations (no C++ compiler)\n");

(cxx === undefined ? test.skip : test)(
  "each operation agrees with float64, its gradient with finite differences, decoding with the whole sequence",
  async () => {
    const library = await cpuLibrary(cxx!);
    const program = await testProgram(cxx!, "model_ops_check.cc");
    const lines = execFileSync(program, [library], { encoding: "utf8" }).trim().split("\n");
    expect(lines.filter((line) => !line.startsWith("ok "))).toEqual([]);
    expect(lines.length).toBe(65);
  },
  600_000,
);
