import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { giveUpAll, LineFile, writeWhole } from "../lib/trainer/durable.js";
import { RunFolder } from "../lib/trainer/run-folder.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "rlsd-durable-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const onLinux = process.platform === "linux" ? test : test.skip;
/** Files of the folder that this process has open. */
function opened(): string[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    try {
      const path = readlinkSync(join("/proc/self/fd", name));
      return path.startsWith(folder) ? [path.slice(folder.length + 1)] : [];
    } catch {
      return [];
    }
  });
}

test("of many that write one file at once each ends well, and one of them is there whole", async () => {
  const file = join(folder, "report.html");
  const pages = Array.from({ length: 12 }, (_, i) => String(i).repeat(100_000 + i));
  await Promise.all(pages.map((page) => writeWhole(file, page)));
  expect(pages).toContain(readFileSync(file, "utf8"));
  expect(readdirSync(folder)).toEqual(["report.html"]);
});

test("what a writer that died left is removed by the next, what a living one is writing is not", async () => {
  const file = join(folder, "report.html");
  const [dead, living, other] = [`${file}.00000000dead.partial`, `${file}.0000000a11fe.partial`, `${file}.partial`];
  for (const path of [dead, living, other]) writeFileSync(path, "half");
  const long = Date.now() / 1000 - 2 * 3600;
  utimesSync(dead, long, long);
  utimesSync(other, long, long);
  await writeWhole(file, "whole");
  const names = ["report.html", "report.html.0000000a11fe.partial", "report.html.partial"];
  expect(readdirSync(folder).sort()).toEqual(names);
});

test("all is given up, also behind a failure, and the first failure is told", async () => {
  const done: number[] = [];
  const giving = giveUpAll(
    () => done.push(1),
    () => Promise.reject(new Error("first")),
    () => {
      throw new Error("second");
    },
    async () => done.push(2),
  );
  await expect(giving).rejects.toThrow("first");
  expect(done).toEqual([1, 2]);
});

onLinux("a run that cannot go on leaves no file open", async () => {
  const path = join(folder, "run");
  const config = { version: "1", config: {} };
  await (await RunFolder.create(path, config)).close();
  let given = 0;
  const unlock = async () => void given++;
  const short = RunFolder.resume(path, config, { metrics: 0, samples: 9 }, unlock);
  await expect(short).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
  expect(opened()).toEqual([]);
  rmSync(join(path, "config.json"));
  const unsettled = RunFolder.resume(path, config, { metrics: 0, samples: 0 }, unlock);
  await expect(unsettled).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
  expect([opened(), given]).toEqual([[], 1]);
  await expect(LineFile.open(join(path, "metrics.jsonl"), 1)).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
  expect(opened()).toEqual([]);
});
