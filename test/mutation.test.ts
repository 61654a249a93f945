import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const root = join(__dirname, "..");
const { FAULTS } = createRequire(__filename)("../scripts/mutate.cjs") as {
  FAULTS: [name: string, file: string, from: string, to: string][];
};

// That a test notices each fault is what `node scripts/mutate.cjs` asks; here only that it can still be planted.
describe("the planted faults", () => {
  it.each(FAULTS)("%s stands where it changes one thing", (_, file, from, to) => {
    const source = readFileSync(join(root, file), "utf8");
    expect(source.includes(from)).toBe(true);
    expect(source.replace(from, to)).not.toBe(source);
  });
});
