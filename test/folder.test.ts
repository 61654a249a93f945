import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeFolder } from "../lib/policy/folder.js";

describe("makeFolder", () => {
  const root = mkdtempSync(join(tmpdir(), "rlsd-folder-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  test("makes a folder and what it lies in, and leaves one that is there", async () => {
    const path = join(root, "a", "b", "c");
    await makeFolder(path);
    await makeFolder(path);
    expect(statSync(path).isDirectory()).toBe(true);
  });

  test("refuses a file in its way", async () => {
    const file = join(root, "file");
    writeFileSync(file, "");
    await expect(makeFolder(file)).rejects.toMatchObject({ code: "EEXIST" });
    await expect(makeFolder(join(file, "below"))).rejects.toMatchObject({ code: "ENOTDIR" });
  });

  const onLinux = process.platform === "linux" ? test : test.skip;
  onLinux("ends where a file system says ENOENT for a parent that is there", async () => {
    await expect(makeFolder("/proc/rlsd/run")).rejects.toMatchObject({ code: "ENOENT" });
  });
});
