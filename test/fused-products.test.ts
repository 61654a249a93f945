import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { compiler } from "./support/cpu-library.js";

const root = join(import.meta.dirname, "..");
const { targets } = JSON.parse(readFileSync(join(root, "binding.gyp"), "utf8"));
const flags: readonly string[] = targets[0].variables.flags;

const works = (name: string): boolean => {
  try {
    execFileSync(name, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};
const compilers =
  process.arch === "x64" ? [compiler(), "clang++"].filter((name) => name !== undefined && works(name)) : [];
if (compilers.length === 0) process.stdout.write("not run: fused products (no compiler for x86-64)\n");

// One rounding less than on a processor without them: then neither RLSD_ISA nor another compiler would give the same bits.
const folder = join(root, "csrc/cpu/model");
const cloned = readdirSync(folder).filter((file) => /^RLSD_CLONES/m.test(readFileSync(join(folder, file), "utf8")));
for (const source of cloned) {
  for (const name of compilers) {
    test(`${name} fuses no product with a sum in ${source}`, () => {
      const args = ["-std=c++17", ...flags, "-mfma", "-Icsrc", "-Icsrc/include", "-S", "-o", "-"];
      const code = execFileSync(name!, [...args, join(folder, source)], {
        cwd: root,
        encoding: "utf8",
        maxBuffer: 1 << 28,
      });
      expect(code).toMatch(/\bv?(mul|cvt)\w*\b/);
      expect(code.match(/\bvfn?m(add|sub)\w*/g) ?? []).toEqual([]);
    });
  }
}
