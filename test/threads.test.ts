import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
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

const limits = process.platform === "linux" && spawnSync("prlimit", ["--version"]).status === 0;
if (!limits) process.stdout.write("not run: a process that may have no more threads (no prlimit)\n");

(limits ? test : test.skip)("a queued call that gets no thread says so, and a later one may go", () => {
  const main = `
    import { execFileSync } from "node:child_process";
    import { readFileSync } from "node:fs";
    import { grpo, policyLoss } from ${JSON.stringify(pathToFileURL(join(__dirname, "../dist/index.js")).href)};
    const limit = (bytes) => execFileSync("prlimit", ["--pid", process.pid, "--as=" + bytes + ":unlimited"]);
    const call = () => policyLoss(
      { student: { logProbs: Float32Array.of(-1) }, cuSeqlens: Int32Array.of(0, 1), advantages: Float32Array.of(1) }, grpo());
    limit("unlimited");
    const kibibytes = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
    limit(1024 * kibibytes + 2 ** 22);
    const refused = await call().catch(({ code, message }) => code + " " + message);
    limit("unlimited");
    console.log(refused, (await call()).loss);`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", main], { encoding: "utf8" });
  expect({ stdout, stderr }).toEqual({
    stdout: expect.stringMatching(/^ERR_RLSD_OUT_OF_MEMORY The system has no thread to give .* -1\n$/),
    stderr: "",
  });
});
