import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exampleSettings, tensorBoard, train } from "../lib/index.js";
import { crc32c, scalarsEvent, startEvent, versionEvent } from "../lib/report/event-file.js";
import { fewRows } from "./support/clock-task.js";

const folderOf = () => mkdtempSync(join(tmpdir(), "rlsd-tensorboard-"));
const eventFiles = (folder: string) => readdirSync(folder).filter((name) => name.startsWith("events.out.tfevents."));

/** A record's data, checked against its two checksums; then what follows it. */
function* recordsOf(bytes: Buffer): Generator<Buffer> {
  const unmasked = (crc: number) => {
    const rotated = (crc - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(unmasked(bytes.readUInt32LE(at + 8))).toBe(crc32c(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(unmasked(bytes.readUInt32LE(at + 12 + length))).toBe(crc32c(data));
    yield data;
    at += 16 + length;
  }
}

/** Fields of a protobuf message, by number; numbers of varints, floats and doubles. */
function fieldsOf(message: Buffer): Map<number, (number | Buffer)[]> {
  const fields = new Map<number, (number | Buffer)[]>();
  let at = 0;
  const varint = () => {
    let [value, shift, byte] = [0, 0, 0x80];
    for (; byte & 0x80; shift += 7) {
      byte = message[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
    }
    return value;
  };
  while (at < message.length) {
    const [field, wire] = [message[at]! >> 3, message[at++]! & 7];
    const take = (length: number) => {
      at += length;
      return message.subarray(at - length, at);
    };
    const readers = [
      varint,
      () => take(8).readDoubleLE(),
      () => take(varint()),
      undefined,
      undefined,
      () => take(4).readFloatLE(),
    ];
    const value = readers[wire]!();
    fields.set(field, [...(fields.get(field) ?? []), value]);
  }
  return fields;
}

interface Point {
  readonly step: number;
  readonly values: Readonly<Record<string, number>>;
}

/** The points of a folder, and from which steps on each of its files makes earlier ones out of date. */
function read(folder: string): { points: Point[]; starts: number[] } {
  const points: Point[] = [];
  const starts: number[] = [];
  for (const name of eventFiles(folder).sort()) {
    for (const data of recordsOf(readFileSync(join(folder, name)))) {
      const event = fieldsOf(data);
      const [step = 0] = (event.get(2) ?? []) as number[];
      if (event.has(7)) starts.push(step);
      if (!event.has(5)) continue;
      const all = fieldsOf(event.get(5)![0] as Buffer).get(1) as Buffer[];
      const values = all.map(fieldsOf).map((value) => [String(value.get(1)![0]), value.get(2)![0] as number]);
      points.push({ step, values: Object.fromEntries(values) });
    }
  }
  return { points, starts };
}

describe("an event file", () => {
  test("has the checksum of RFC 3720", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  });

  // Written by tensorboard 2.21.0: RecordWriter over Event(...).SerializeToString().
  test.each([
    [versionEvent(1796025103.5), "1800000000000000a37f4b22090000e0c34ac3da411a0d627261696e2e4576656e743a32cb4a354c"],
    [startEvent(1796025103.5, 301), "100000000000000095fbfe18090000e0c34ac3da4110ad023a020801cd369fdb"],
    [
      scalarsEvent(1796025103.5, 300, { "train/loss": 0.25, "train/entropy": Number.NaN }),
      "3700000000000000e7e8ca59090000e0c34ac3da4110ac022a290a110a0a747261696e2f6c6f7373150000803e0a140a0d747261696e2f656e74726f7079150000c07fd2249a41",
    ],
  ])("is what TensorBoard's own writer makes: %#", (actual, wanted) => expect(actual.toString("hex")).toBe(wanted));
});

const few = fewRows(folderOf());

/** The built-in example, small. */
const example = (steps: number, output: string) => ({
  ...exampleSettings(),
  steps,
  output,
  rollout: { ...exampleSettings().rollout, prompts: 2, count: 2 },
  data: { ...exampleSettings().data, train: [few] },
  eval: { every: 2, limit: 5 },
  checkpoint: { every: 2 },
});

describe("a run with tensorBoard()", () => {
  test("has every number of metrics.jsonl there, and goes on in a second file", async () => {
    const run = join(folderOf(), "run");
    await train(example(2, run), tensorBoard());
    await train(example(4, run), { resume: run, ...tensorBoard() });
    const { points, starts } = read(run);
    expect(starts).toEqual([1, 3]);
    const lines = readFileSync(join(run, "metrics.jsonl"), "utf8").trim().split("\n");
    const logged = lines.map((line) => JSON.parse(line) as Record<string, number & string>);
    expect(points.map(({ step }) => step)).toEqual(logged.map(({ step }) => step));
    for (const [i, { step: _, kind, time, ...rest }] of logged.entries()) {
      const { values } = points[i]!;
      for (const [name, value] of Object.entries(rest)) {
        expect([name, values[`${kind}/${name}`]]).toEqual([name, Math.fround(value as number)]);
      }
      expect("time/total" in values).toBe(kind === "train");
    }
  });

  test("writes into the folder that it is given, and says where it cannot", async () => {
    const folder = folderOf();
    const run = join(folder, "run");
    await train(example(1, run), tensorBoard(join(folder, "a", "b")));
    expect(eventFiles(run)).toEqual([]);
    expect(read(join(folder, "a", "b")).points.length).toBe(3);
    const file = join(folder, "file");
    writeFileSync(file, "");
    const refused = train(example(1, join(folder, "other")), tensorBoard(file));
    await expect(refused).rejects.toMatchObject({ code: "ERR_RLSD_WRITE" });
    expect(() => tensorBoard("")).toThrow(/folder/);
  });

  test("is --tensorboard of the command line, in a comparison too", () => {
    const folder = folderOf();
    const main = join(__dirname, "..", "dist", "cli", "main.js");
    const small = [
      "--set",
      "steps=1",
      "--set",
      "eval.limit=2",
      "--set",
      "rollout.prompts=1",
      "--set",
      "rollout.count=2",
      "--set",
      `data.train=${few}`,
    ];
    const call = (...args: string[]) => execFileSync(process.execPath, [main, ...args, ...small], { stdio: "pipe" });
    call("train", "--tensorboard", "--output", join(folder, "train"));
    call("compare", "--tensorboard", "--seeds", "1", "--output", join(folder, "compare"));
    for (const run of ["train", "compare/grpo/seed-1", "compare/rlsd/seed-1"]) {
      expect([run, read(join(folder, run)).points.map(({ step }) => step)]).toEqual([run, [0, 1, 1]]);
    }
  });
});
