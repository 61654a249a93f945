import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCli } from "./support/cli.js";
import { compiler } from "./support/cpu-library.js";

const canRun = process.platform === "linux" && compiler() !== undefined;
if (!canRun) process.stdout.write("not run: threads with small stacks (no Linux, or no compiler)\n");
const folder = mkdtempSync(join(tmpdir(), "rlsd-stack-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

(canRun ? test : test.skip)(
  "training needs no more of a thread's stack than it asks for, whatever the system's default",
  () => {
    const preload = join(folder, "small_stacks.so");
    const source = join(__dirname, "../csrc/test/small_stacks.c");
    execFileSync(process.env.CC ?? "cc", ["-shared", "-fPIC", source, "-o", preload, "-lpthread"]);
    const settings = ["steps=1", "rollout.prompts=4", "eval.every=0", "eval.limit=8"].flatMap((set) => ["--set", set]);
    const { status, stderr } = runCli(["train", "--json", "--output", "run", ...settings], folder, {
      LD_PRELOAD: preload,
    });
    expect({ status, stderr }).toMatchObject({ status: 0 });
  },
);
