import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { giveUpAll, LineFile, writeWhole } from "../lib/trainer/durable.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { RunFolder, type SampleLine } from "../lib/trainer/run-folder.js";
import { readMetrics, readSamples } from "../lib/trainer/run-logs.js";
import { all } from "./support/run-files.js";

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

describe("a run's logs that are not as its checkpoint left them", () => {
  const config = { version: "1", config: {} };
  const unlock = async () => {};
  async function made(name: string): Promise<string> {
    const path = join(folder, name);
    await (await RunFolder.create(path, config)).close();
    writeFileSync(join(path, "metrics.jsonl"), "one\ntwo\nthree\n");
    writeFileSync(join(path, "samples.jsonl"), "first\nsecond\n");
    return path;
  }
  const resume = (path: string, metrics: number, samples: number) =>
    RunFolder.resume(path, config, { metrics, samples }, unlock);

  test("are an error before one of them is cut off, or made", async () => {
    const path = await made("cut");
    const [metrics, samples] = [join(path, "metrics.jsonl"), join(path, "samples.jsonl")];
    await expect(resume(path, 4, 3)).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringMatching(/samples.jsonl has no line that ends there, but the checkpoint .* had 3/),
    });
    rmSync(samples);
    await expect(resume(path, 4, 6)).rejects.toThrow(/samples.jsonl has 0 bytes, but the checkpoint/);
    expect(readFileSync(metrics, "utf8")).toBe("one\ntwo\nthree\n");
    expect(existsSync(samples)).toBe(false);
    writeFileSync(samples, "first\nsecond\n");
    await (await resume(path, 4, 6)).close();
    expect([readFileSync(metrics, "utf8"), readFileSync(samples, "utf8")]).toEqual(["one\n", "first\n"]);
  });

  test.each([
    ["a folder", (path: string) => void mkdirSync(path), /it is a folder/],
    ["a pipe", (path: string) => void execFileSync("mkfifo", [path]), /but a pipe or a device/],
  ])("are an error where they are %s", async (_, make, message) => {
    const path = await made("odd");
    rmSync(join(path, "metrics.jsonl"));
    make(join(path, "metrics.jsonl"));
    for (const offset of [0, 4]) {
      await expect(resume(path, offset, 6)).rejects.toMatchObject({
        code: "ERR_RLSD_RUN_FOLDER",
        message: expect.stringMatching(message),
      });
    }
    expect(readFileSync(join(path, "samples.jsonl"), "utf8")).toBe("first\nsecond\n");
  });

  test("are an error where a line in them is no longer UTF-8", async () => {
    const path = await made("bytes");
    const line = Buffer.from(`${JSON.stringify(metrics)}\n`.replace('"eval"', '"eval","note":"x"'));
    line[line.indexOf('"x"') + 1] = 0xff;
    writeFileSync(join(path, "metrics.jsonl"), Buffer.concat([line, line]));
    await expect(all(readMetrics(path))).rejects.toThrow(/metrics.jsonl:1 is not JSON: the file is damaged/);
  });
});

test("a line that could be written in part alone is taken back: what is written next does not follow it", async () => {
  const path = join(folder, "lines.jsonl");
  const file = await LineFile.open(path);
  await file.append(["one"]);
  const { handle } = file as unknown as { handle: { write(bytes: Buffer, at: number): Promise<unknown> } };
  const write = handle.write.bind(handle);
  handle.write = async (bytes, at) => {
    if (at > 0) throw Object.assign(new Error("full"), { code: "ENOSPC" });
    return write(bytes.subarray(0, 2), 0);
  };
  await expect(file.append(["two"])).rejects.toMatchObject({ code: "ERR_RLSD_WRITE" });
  handle.write = write;
  await file.append(["three"]);
  await file.close();
  expect([readFileSync(path, "utf8"), file.offset]).toEqual(["one\nthree\n", 10]);
});

const sample: SampleLine = {
  step: 1,
  id: "a",
  group: 0,
  prompt: "p",
  privileged: null,
  completion: "bc",
  tokenIds: [1, 2],
  tokenText: ["b", "c"],
  logProbs: [-1, null],
  teacherLogProbs: [],
  evidenceWeights: [],
  tokenAdvantages: [0, 0.5],
  reward: null,
  advantage: 0.5,
  detail: {},
};
const metrics: MetricsLine = { step: 1, kind: "eval", accuracy: 0.5, time: { total: 1 } };

test("a line that no run writes is named, whatever is wrong with it", async () => {
  const samples = join(folder, "samples.jsonl");
  const told = { ...sample, teacherLogProbs: [-1, -2], evidenceWeights: [1, null], privileged: "s", reward: 1 };
  const none = { ...sample, completion: "", tokenIds: [], tokenText: [], logProbs: [], tokenAdvantages: [] };
  const compared = { ...sample, divergences: [0, 0.5] };
  writeFileSync(samples, [sample, told, none, compared].map((line) => `${JSON.stringify(line)}\n`).join(""));
  expect(await all(readSamples(folder))).toEqual([sample, told, none, compared]);
  const wrong: object[] = [
    ...Object.keys(sample).map((name) => ({ ...sample, [name]: undefined })),
    ...Object.keys(sample).map((name) => ({ ...sample, [name]: true })),
    { ...sample, detail: null },
    { ...sample, tokenText: ["b"] },
    { ...sample, tokenText: ["b", null] },
    { ...sample, logProbs: [] },
    { ...sample, teacherLogProbs: [-1] },
    { ...sample, evidenceWeights: ["1", 1] },
    { ...sample, divergences: [0] },
    { ...sample, divergences: ["0", 1] },
    [],
  ];
  for (const line of wrong) {
    writeFileSync(samples, `${JSON.stringify(sample)}\n${JSON.stringify(line)}\n`);
    const reading = all(readSamples(folder)).catch((error: Error) => error.message);
    expect([line, await reading]).toEqual([line, expect.stringMatching(/samples\.jsonl:2 is no line that a run/)]);
  }
  const log = join(folder, "metrics.jsonl");
  const fits = [metrics, { step: 1, kind: "train", time: {} }, { ...metrics, time: { tokensPerSecond: null } }];
  writeFileSync(log, fits.map((line) => `${JSON.stringify(line)}\n`).join(""));
  expect(await all(readMetrics(folder))).toEqual(fits);
  for (const part of [{ step: "1" }, { kind: "test" }, { time: null }, { time: [] }, { time: { total: "1" } }]) {
    writeFileSync(log, `${JSON.stringify({ ...metrics, ...part })}\n`);
    const reading = all(readMetrics(folder)).catch((error: Error) => error.message);
    expect([part, await reading]).toEqual([part, expect.stringMatching(/metrics\.jsonl:1 is no line that a run/)]);
  }
});

onLinux("a log that is not read to its end is closed", async () => {
  writeFileSync(join(folder, "samples.jsonl"), `${JSON.stringify(sample)}\n`.repeat(50_000));
  for await (const _ of readSamples(folder)) {
    // Long enough that reading ahead has paused.
    await setTimeout(200);
    break;
  }
  for (const end = Date.now() + 5000; opened().length > 0 && Date.now() < end; ) await setTimeout(5);
  expect(opened()).toEqual([]);
});
