import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dequantize } from "../lib/gguf/dequantize.js";
import { quantizeQ8 } from "../lib/gguf/quantize.js";
import { readGguf } from "../lib/gguf/read.js";
import { loadChatTemplate, loadPolicy, loadTokenizer } from "../lib/index.js";
import { runCli } from "./support/cli.js";
import { readTensors, relativeError, sameBits } from "./support/safetensors.js";

const fixtures = join(__dirname, "fixtures/gguf");
const folder = mkdtempSync(join(tmpdir(), "rlsd-gguf-files-"));
const fixture = (name: string) => join(fixtures, name);
const MODELS = ["llama-pieces", "gemma3-pieces", "qwen3-bytes"];

describe("blocks", () => {
  const expected = readTensors(fixture("quants.safetensors"));

  test("of every type become the numbers of ggml's reference, to the bit", async () => {
    const file = fixture("quants.gguf");
    const { tensors } = await readGguf(file);
    expect(tensors.size).toBe(13);
    for (const [name, { type, start, end }] of tensors) {
      const bytes = new Uint8Array(readFileSync(file).subarray(start, end));
      expect([name, type.name]).toEqual([name, name]);
      expect([name, sameBits(dequantize(bytes, type), expected.get(name)!.data)]).toEqual([name, true]);
    }
  });

  test("of Q8_0 are made as ggml's reference makes them", () => {
    const blocks = quantizeQ8(expected.get("source")!.data as Float32Array) as Uint8Array;
    expect([...new Int8Array(blocks.buffer)]).toEqual([...expected.get("blocks")!.data]);
  });
});

describe.each(MODELS)("%s", (name) => {
  const file = fixture(`${name}.gguf`);

  test("computes what transformers computes from it", async () => {
    await using policy = await loadPolicy(file);
    const expected = readTensors(fixture(`${name}.safetensors`));
    const logits = await policy.logits(expected.get("input_ids")!.data as Int32Array);
    expect(relativeError(logits, expected.get("logits")!.data)).toBeLessThan(2e-5);
  });

  test("reads texts as the tokens that llama.cpp reads", async () => {
    const tokenizer = await loadTokenizer(file);
    const cases = JSON.parse(readFileSync(fixture("expected.json"), "utf8"))[name] as { text: string; ids: number[] }[];
    for (const { text, ids } of cases) expect([text, ...tokenizer.encode(text)]).toEqual([text, ...ids]);
    expect(cases.length).toBe(9);
  });

  test("is written again with the same vocabulary and numbers", async () => {
    await using policy = await loadPolicy(file);
    const again = join(folder, `${name}.gguf`);
    await policy.saveGguf(again);
    const [before, after] = [await readGguf(file), await readGguf(again)];
    for (const key of ["tokens", "token_type", "add_space_prefix", "bos_token_id", "eos_token_id"]) {
      expect([key, after.metadata.get(`tokenizer.ggml.${key}`)]).toEqual([
        key,
        before.metadata.get(`tokenizer.ggml.${key}`),
      ]);
    }
    await using same = await loadPolicy(again);
    for (const one of policy.parameterNames) {
      expect([one, sameBits(await policy.readParameter(one), await same.readParameter(one))]).toEqual([one, true]);
    }
    const cases = JSON.parse(readFileSync(fixture("expected.json"), "utf8"))[name] as { text: string; ids: number[] }[];
    for (const { text, ids } of cases) expect([text, ...same.tokenizer!.encode(text)]).toEqual([text, ...ids]);
  });
});

describe("a .gguf file in a model's place", () => {
  const llama = fixture("llama-pieces.gguf");

  test("gives its chat template, and what begins and ends a text", async () => {
    const template = await loadChatTemplate(llama);
    expect(template!.render([{ role: "user", content: "hi" }])).toBe("user: hi\n");
    const tokenizer = await loadTokenizer(llama);
    expect([...tokenizer.encode("hello", { addSpecialTokens: true })]).toEqual([1, 333, 263, 274]);
    await using policy = await loadPolicy(llama);
    // Beside the file's own, the one that ends a turn by its name.
    expect(policy.endTokenIds).toEqual([2, 260]);
  });

  test("is asked by rlsd generate, exported as a folder, and stands under adapters", async () => {
    const asked = runCli(["generate", llama, "hello world", "--max-tokens", "3", "--json"], folder);
    expect([asked.status, asked.stderr]).toEqual([0, expect.stringMatching(/3 tokens/)]);
    const exported = runCli(["export", llama, "plain", "--json"], folder);
    expect([exported.status, exported.stderr]).toEqual([0, ""]);
    await using policy = await loadPolicy(llama);
    await using plain = await loadPolicy(join(folder, "plain"));
    const ids = Int32Array.of(1, 5, 9);
    expect(sameBits(await plain.logits(ids), await policy.logits(ids))).toBe(true);
    expect(plain.tokenizer!.encode("hello world")).toEqual(policy.tokenizer!.encode("hello world"));
    await using adapted = await policy.withLora({ rank: 2 });
    await adapted.save(join(folder, "adapters"));
    const { base_model_name_or_path: base } = JSON.parse(
      readFileSync(join(folder, "adapters/adapter_config.json"), "utf8"),
    );
    expect(base).toBe(llama);
    await using loaded = await loadPolicy(join(folder, "adapters"));
    expect(sameBits(await loaded.logits(ids), await policy.logits(ids))).toBe(true);
  });

  test("stays as it is where another save is to go to it", async () => {
    await using policy = await loadPolicy(llama);
    const file = join(folder, "mine.gguf");
    writeFileSync(file, "mine");
    await expect(policy.saveGguf(file)).rejects.toMatchObject({ code: "ERR_RLSD_SAVE", cause: { code: "EEXIST" } });
    expect(readFileSync(file, "utf8")).toBe("mine");
    expect(readdirSync(folder).filter((name) => name.startsWith(".mine"))).toEqual([]);
  });

  test("is trained", async () => {
    writeFileSync(
      join(folder, "rows.jsonl"),
      [1, 2, 3, 4].map((i) => `${JSON.stringify({ prompt: `world ${i}`, answer: "hello" })}\n`).join(""),
    );
    const settings = {
      model: llama,
      data: { train: ["rows.jsonl"] },
      reward: { type: "regex", pattern: "h" },
      rollout: { prompts: 2, count: 2, maxTokens: 4 },
      steps: 2,
      output: "run",
    };
    writeFileSync(join(folder, "run.json"), JSON.stringify(settings));
    const { status, stderr } = runCli(["train", "run.json"], folder);
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    await using policy = await loadPolicy(llama);
    await using trained = await loadPolicy(join(folder, "run/checkpoints/step-000002/model"));
    expect(trained.config).toEqual(policy.config);
    const { status: planned } = runCli(
      ["train", "run.json", "--dry-run", "--set", "teacher.kind=external", "--set", `teacher.model=${llama}`],
      folder,
    );
    expect(planned).toBe(0);
  });
});
