import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  exportModel,
  loadChatTemplate,
  loadPolicy,
  loadTokenizer,
  RlsdError,
  readMetrics,
  readRunConfig,
} from "../lib/index.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-odd-files-"));
const models = join(__dirname, "fixtures/models");

let count = 0;
/** A copy of a model's folder with a tokenizer, in which `make` puts something in the place of one file. */
function withOdd(name: string, make: (path: string) => void): string {
  const copy = join(folder, `model-${count++}`);
  for (const from of ["qwen3-tied", "tokenizer-bpe"]) cpSync(join(models, from), copy, { recursive: true });
  rmSync(join(copy, name), { force: true });
  make(join(copy, name));
  return copy;
}

const pipe = (path: string) => void execFileSync("mkfifo", [path]);
const loop = (path: string) => symlinkSync(path, path);
const pointer = (path: string) =>
  writeFileSync(path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n");

async function refused(read: Promise<unknown>): Promise<RlsdError> {
  const error: unknown = await read.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(RlsdError);
  return error as RlsdError;
}

describe.each<[string, (path: string) => void, RegExp]>([
  ["a pipe", pipe, /it is no file, but a pipe or a device/],
  ["a folder", (path) => mkdirSync(path), /it is a folder|EISDIR/],
  ["a device without end", (path) => symlinkSync("/dev/zero", path), /it is no file, but a pipe or a device/],
  ["a link to itself", loop, /ELOOP/],
  [
    "what Git LFS leaves",
    pointer,
    /it is a pointer of Git LFS: `git lfs pull` in its folder puts the file in its place/,
  ],
])("%s in the place of", (_, make, message) => {
  test.each([
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors",
  ])("a model's %s", async (name) => {
    const { message: told } = await refused(loadPolicy(withOdd(name, make)));
    expect(told).toMatch(name === "model.safetensors" && make === loop ? /model.safetensors/ : message);
  });

  test("its chat template, or a run's files", async () => {
    for (const name of ["chat_template.jinja", "tokenizer_config.json"]) {
      expect((await refused(loadChatTemplate(withOdd(name, make)))).message).toMatch(message);
    }
    expect((await refused(readRunConfig(withOdd("config.json", make)))).message).toMatch(message);
    const read = readMetrics(withOdd("metrics.jsonl", make)).next();
    expect((await refused(read)).message).toMatch(message);
  });
});

test.each(["null", "[]", "5", '"x"'])("a tokenizer_config.json that is %s", async (json) => {
  const model = withOdd("tokenizer_config.json", (path) => writeFileSync(path, json));
  rmSync(join(model, "chat_template.jinja"));
  for (const read of [loadChatTemplate(model), loadTokenizer(model), loadPolicy(model)]) {
    expect((await refused(read)).message).toMatch(/tokenizer_config.json: expected an object/);
  }
});

describe("a path", () => {
  const before = process.env.HF_HUB_CACHE;
  beforeAll(() => {
    process.env.HF_HUB_CACHE = join(folder, "hub");
  });
  afterAll(() => {
    if (before === undefined) delete process.env.HF_HUB_CACHE;
    else process.env.HF_HUB_CACHE = before;
  });

  test.each([
    ["a link to itself", () => loop(join(folder, "loop")), () => join(folder, "loop")],
    ["a link to itself that ends in .gguf", () => loop(join(folder, "a.gguf")), () => join(folder, "a.gguf")],
    ["through a file", () => writeFileSync(join(folder, "file"), ""), () => join(folder, "file", "x")],
    ["of a name too long", () => {}, () => join(folder, "x".repeat(300))],
    ["of the cache whose ref is a folder", () => mkdirSync(ref("folder"), { recursive: true }), () => "o/folder"],
    ["of the cache whose ref is a pipe", () => pipe(ref("pipe")), () => "o/pipe"],
  ])("%s is no model", async (_, make, path) => {
    make();
    for (const read of [loadPolicy, loadTokenizer, loadChatTemplate]) {
      expect(await refused(read(path()))).toMatchObject({
        code: "ERR_RLSD_MODEL_FILE",
        message: expect.stringMatching(/does not exist: expected a Hugging Face model folder/),
      });
    }
  });

  test("with a zero byte, or where nothing can be written, is refused", async () => {
    const model = join(models, "qwen3-tied");
    for (const read of [loadPolicy("a\0b"), loadTokenizer("a\0b"), exportModel(model, "a\0b")]) {
      expect(await refused(read)).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT" });
    }
    loop(join(folder, "round"));
    for (const output of [join(folder, "round"), join(folder, "x".repeat(300))]) {
      expect(await refused(exportModel(model, output))).toMatchObject({ code: "ERR_RLSD_WRITE" });
    }
  });
});

/** Where the cache says which snapshot of a model it has. */
function ref(name: string): string {
  const refs = join(folder, "hub", `models--o--${name}`, "refs");
  mkdirSync(refs, { recursive: true });
  return join(refs, "main");
}
