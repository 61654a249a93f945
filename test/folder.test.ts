import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeFolder, renameOver } from "../lib/policy/folder.js";

const root = mkdtempSync(join(tmpdir(), "rlsd-folder-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("makeFolder", () => {
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

describe("renameOver", () => {
  const [from, to] = [join(root, "new"), join(root, "old")];
  const system = process.platform;
  const on = (platform: string) => Object.defineProperty(process, "platform", { value: platform });
  /** A rename that is refused so often before it is done. */
  const refusing = (code: string, times: number) => {
    const rename = fs.rename;
    return jest.spyOn(fs, "rename").mockImplementation(async (...paths) => {
      if (times-- > 0) throw Object.assign(new Error(code), { code });
      await rename(...paths);
    });
  };
  beforeEach(() => {
    writeFileSync(from, "new");
    writeFileSync(to, "old");
  });
  afterEach(() => {
    jest.restoreAllMocks();
    on(system);
  });

  test.each(["EPERM", "EACCES", "EBUSY"])("waits on Windows for who has a file open (%s)", async (code) => {
    on("win32");
    const rename = refusing(code, 3);
    await renameOver(from, to);
    expect(rename).toHaveBeenCalledTimes(4);
    expect([readFileSync(to, "utf8"), existsSync(from)]).toEqual(["new", false]);
  });

  test.each([
    ["linux", "EPERM"],
    ["win32", "ENOSPC"],
  ])("tells at once on %s what %s says", async (platform, code) => {
    on(platform);
    const rename = refusing(code, 1);
    await expect(renameOver(from, to)).rejects.toMatchObject({ code });
    expect(rename).toHaveBeenCalledTimes(1);
    expect(readFileSync(to, "utf8")).toBe("old");
  });
});
