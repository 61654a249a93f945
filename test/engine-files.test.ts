import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, loadPolicy } from "../lib/index.js";
import { readTensors, sameBits } from "./support/safetensors.js";
import { ids, prompts, TINY, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const models = join(__dirname, "fixtures/models");
const prompt = ids(3, 14, 15, 9, 26);
type Json = Record<string, unknown>;

const copyOf = (name: string): string => {
  const directory = join(temporaryFolder(), name);
  cpSync(join(models, name), directory, { recursive: true });
  return directory;
};

async function logitsOf(directory: string): Promise<Float32Array> {
  const policy = await loadPolicy(directory);
  const logits = await policy.logits(prompt);
  await policy.dispose();
  return logits;
}

/** Rewrites the header of a safetensors file, padded to its old length where that is possible. */
function editHeader(file: string, edit: (header: Json) => void): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Json;
  edit(header);
  const json = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(file, Buffer.concat([start, json, bytes.subarray(8 + length)]));
}

describe("saving and loading", () => {
  test.each(["qwen3-tied", "qwen2-bias", "llama-gqa"])(
    "%s comes back to the bit, configuration and all",
    async (name) => {
      const policy = await loadPolicy(join(models, name));
      const wanted = await policy.logits(prompt);
      const directory = join(temporaryFolder(), "nested", "saved");
      mkdirSync(join(directory, ".."));
      await policy.save(directory);
      await policy.dispose();
      expect(sameBits(await logitsOf(directory), wanted)).toBe(true);
      const original = readTensors(join(models, name, "model.safetensors"));
      const saved = readTensors(join(directory, "model.safetensors"));
      expect([...saved.keys()].sort()).toEqual([...original.keys()].sort());
      for (const [key, { shape, data }] of original) {
        expect([key, saved.get(key)?.shape]).toEqual([key, shape]);
        expect(sameBits(saved.get(key)!.data, data)).toBe(true);
      }
      const json = JSON.parse(readFileSync(join(models, name, "config.json"), "utf8")) as Json;
      expect(JSON.parse(readFileSync(join(directory, "config.json"), "utf8"))).toEqual({ ...json, dtype: "float32" });
      expect(readdirSync(directory).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
    },
  );

  test("bf16 weights survive bf16; f32 weights are rounded to the nearest", async () => {
    const policy = await loadPolicy(join(models, "qwen3-tied-bf16"));
    const directory = temporaryFolder();
    await policy.save(directory, { dtype: "bf16" });
    const original = readTensors(join(models, "qwen3-tied-bf16", "model.safetensors"));
    const saved = readTensors(join(directory, "model.safetensors"));
    for (const [name, { data }] of original)
      expect([name, sameBits(saved.get(name)!.data, data)]).toEqual([name, true]);
    await policy.writeParameter("model.norm.weight", new Float32Array(64).fill(1 + 2 ** -8 + 2 ** -20));
    for (const [dtype, rounded] of [
      ["bf16", 1 + 2 ** -7],
      ["f16", 1 + 2 ** -8],
    ] as const) {
      await policy.save(directory, { dtype });
      const again = await loadPolicy(directory);
      expect((await again.readParameter("model.norm.weight"))[0]).toBe(rounded);
      await again.dispose();
    }
    await policy.dispose();
  });

  test("a sharded model is written with an index and loads to the same bits", async () => {
    const policy = await tinyPolicy();
    const directory = temporaryFolder();
    await policy.save(directory, { maxShardBytes: 8000 });
    const index = JSON.parse(readFileSync(join(directory, "model.safetensors.index.json"), "utf8")) as {
      metadata: { total_size: number };
      weight_map: Record<string, string>;
    };
    expect(index.metadata.total_size).toBe(4 * policy.parameterCount);
    expect(new Set(Object.values(index.weight_map)).size).toBeGreaterThan(2);
    expect(existsSync(join(directory, "model.safetensors"))).toBe(false);
    expect(sameBits(await logitsOf(directory), await policy.logits(prompt))).toBe(true);
    // A later save in one file leaves no shard behind that could be read instead.
    await policy.save(directory);
    expect(readdirSync(directory).filter((f) => f.startsWith("model"))).toEqual(["model.safetensors"]);
    await policy.dispose();
  });

  test("tokenizer files travel with the model", async () => {
    const tokenizer = join(models, "tokenizer-bpe");
    const names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(tokenizer, name))]));
    const policy = await createPolicy({ ...TINY, vocabSize: 359 }, { files });
    const directory = temporaryFolder();
    await policy.save(directory);
    for (const name of names) expect(readFileSync(join(directory, name))).toEqual(files[name]);
    const again = await loadPolicy(directory);
    expect([...again.tokenizer!.encode("The answer")]).toEqual([...policy.tokenizer!.encode("The answer")]);
    await policy.dispose();
    await again.dispose();
  });

  test("training goes on after loading the optimizer as if it had never stopped", async () => {
    const { rowCoefficient } = await import("../lib/index.js");
    const objective = rowCoefficient({ reduction: "token-sum" });
    const batch = { sequences: [{ prompt, completion: ids(1, 2, 3, 4) }], advantages: new Float32Array(4).fill(-1) };
    const steps = async (policy: EnginePolicy, count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await policy.accumulate(batch, objective);
        await policy.step({ learningRate: 0.01 });
      }
    };
    const straight = await tinyPolicy();
    await steps(straight, 3);
    const directory = temporaryFolder();
    await straight.save(directory, { optimizer: true });
    await steps(straight, 2);
    const resumed = await loadPolicy(directory);
    await resumed.loadOptimizer(directory);
    await steps(resumed, 2);
    expect(await resumed.logits(prompt)).toEqual(await straight.logits(prompt));
    await straight.dispose();
    await resumed.dispose();
  });
});

describe("a save that fails leaves the old files whole", () => {
  const snapshot = (directory: string): Map<string, Buffer> =>
    new Map(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name))]));

  test("when the folder beside cannot be written", async () => {
    const policy = await tinyPolicy();
    const parent = temporaryFolder();
    const directory = join(parent, "model");
    await policy.save(directory, { optimizer: true });
    const before = snapshot(directory);
    // A file in the way of the folder that a save writes in, whatever user runs the test.
    const blocked = join(directory, "config.json", "model");
    await expect(policy.save(blocked)).rejects.toMatchObject({ code: "ERR_RLSD_SAVE" });
    chmodSync(parent, 0o555);
    const refused = await policy.save(directory, { dtype: "bf16" }).then(
      () => false,
      (error) => error.code === "ERR_RLSD_SAVE",
    );
    chmodSync(parent, 0o755);
    if (refused) expect(snapshot(directory)).toEqual(before);
    await policy.dispose();
  });

  test("when the disk refuses", async () => {
    const policy = await tinyPolicy();
    const parent = temporaryFolder();
    const directory = join(parent, "m".repeat(250)); // a folder beside it would have too long a name
    await policy.save(join(parent, "model"));
    renameSync(join(parent, "model"), directory);
    const before = snapshot(directory);
    await expect(policy.save(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_SAVE",
      message: expect.stringContaining("could not save the model"),
    });
    expect(snapshot(directory)).toEqual(before);
    expect(readdirSync(parent)).toHaveLength(1);
    await policy.dispose();
  });

  test("when a later file cannot be written", async () => {
    const policy = await tinyPolicy();
    const last = policy.parameterNames.at(-1)!;
    await policy.writeParameter(last, (await policy.readParameter(last)).fill(1e6));
    const good = await tinyPolicy({}, { seed: 5 });
    const parent = temporaryFolder();
    const directory = join(parent, "model");
    await good.save(directory);
    const before = snapshot(directory);
    await expect(policy.save(directory, { dtype: "f16", maxShardBytes: 1 })).rejects.toMatchObject({
      code: "ERR_RLSD_SAVE",
      message: expect.stringContaining(last),
    });
    expect(snapshot(directory)).toEqual(before);
    expect(readdirSync(parent)).toEqual(["model"]);
    await policy.dispose();
    await good.dispose();
  });
});

describe("files that cannot be loaded name the file, the tensor, what was expected and what came", () => {
  const cases: [string, (directory: string) => void, RegExp][] = [
    ["no folder", (d) => rmSync(d, { recursive: true }), /[^/]: does not exist: expected a Hugging Face model folder/],
    ["no config.json", (d) => rmSync(join(d, "config.json")), /config\.json: does not exist/],
    ["no weights", (d) => rmSync(join(d, "model.safetensors")), /has neither model\.safetensors nor/],
    ["config.json that is not JSON", (d) => writeFileSync(join(d, "config.json"), "{"), /config\.json: is not JSON/],
    [
      "a folder for a file",
      (d) => {
        rmSync(join(d, "model.safetensors"));
        mkdirSync(join(d, "model.safetensors"));
      },
      /model\.safetensors: could not be opened: it is a folder/,
    ],
    ["an empty file", (d) => writeFileSync(join(d, "model.safetensors"), ""), /but it has 0 bytes/],
    [
      "a file cut in its header",
      (d) => truncateSync(join(d, "model.safetensors"), 100),
      /its header claims \d+ bytes but the file has 100/,
    ],
    [
      "a file cut in its data",
      (d) => truncateSync(join(d, "model.safetensors"), 200_000),
      /its data ends at byte \d+ but the file has 200000: truncated/,
    ],
    [
      "a wild header length",
      (d) => {
        const file = join(d, "model.safetensors");
        const bytes = readFileSync(file);
        bytes.writeBigUInt64LE(2n ** 63n);
        writeFileSync(file, bytes);
      },
      /its header claims 9223372036854776000 bytes/,
    ],
    [
      "noise for a header",
      (d) => {
        const file = join(d, "model.safetensors");
        const bytes = readFileSync(file);
        bytes.fill(0x7a, 8, 40);
        writeFileSync(file, bytes);
      },
      /its header is not JSON/,
    ],
    ...(
      [
        ["a hole in its data", (h) => delete h["model.norm.weight"], /tensors? .*(end|starts) at byte \d+ but/],
        [
          "a tensor of another shape",
          (h) => Object.assign(h["model.norm.weight"] as Json, { shape: [8, 8] }),
          /"model\.norm\.weight": expected \[64\] but found \[8, 8\]/,
        ],
        [
          "a shape that its bytes do not fill",
          (h) => Object.assign(h["model.norm.weight"] as Json, { shape: [63] }),
          /"model\.norm\.weight": shape \[63\] of F32 takes 252 bytes but data_offsets span 256/,
        ],
        [
          "another type",
          (h) => Object.assign(h["model.norm.weight"] as Json, { dtype: "I32" }),
          /"model\.norm\.weight": expected F32, F16 or BF16 but found I32/,
        ],
        [
          "an unknown type",
          (h) => Object.assign(h["model.norm.weight"] as Json, { dtype: "F4" }),
          /unknown dtype "F4"/,
        ],
        [
          "offsets backwards",
          (h) => Object.assign(h["model.norm.weight"] as Json, { data_offsets: [256, 0] }),
          /data_offsets span -256/,
        ],
        [
          "offsets that are no numbers",
          (h) => Object.assign(h["model.norm.weight"] as Json, { data_offsets: ["0", 8] }),
          /two data_offsets/,
        ],
        [
          "a negative dimension",
          (h) => Object.assign(h["model.norm.weight"] as Json, { shape: [-1, -64] }),
          /expected a shape/,
        ],
        [
          "a tensor that the model has no place for",
          (h) => {
            h["model.layers.0.self_attn.k_proj.bias"] = h["model.norm.weight"];
            delete h["model.norm.weight"];
          },
          /"model\.norm\.weight" is missing: expected \[64\]/,
        ],
      ] as [string, (h: Json) => void, RegExp][]
    ).map(([name, edit, message]): [string, (d: string) => void, RegExp] => [
      name,
      (d) => editHeader(join(d, "model.safetensors"), edit),
      message,
    ]),
  ];

  test.each(cases)("%s", async (_, damage, message) => {
    const directory = copyOf("qwen3-tied");
    damage(directory);
    await expect(loadPolicy(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: expect.stringMatching(message),
    });
  });

  test("a tensor of another architecture", async () => {
    const directory = copyOf("qwen2-bias");
    const config = join(directory, "config.json");
    writeFileSync(config, readFileSync(config, "utf8").replace('"qwen2"', '"llama"'));
    await expect(loadPolicy(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringMatching(
        /model\.safetensors: tensor "model\.layers\.0\.self_attn\..*bias" has no place in a llama/,
      ),
    });
  });

  test("an index that names a file elsewhere, or a tensor that is not there", async () => {
    const policy = await tinyPolicy();
    const directory = temporaryFolder();
    await policy.save(directory, { maxShardBytes: 8000 });
    await policy.dispose();
    const file = join(directory, "model.safetensors.index.json");
    const index = JSON.parse(readFileSync(file, "utf8")) as { weight_map: Record<string, string> };
    const write = (map: Record<string, string>): void => writeFileSync(file, JSON.stringify({ weight_map: map }));
    write({ ...index.weight_map, "model.norm.weight": "../secret.safetensors" });
    await expect(loadPolicy(directory)).rejects.toThrow(
      /tensor "model\.norm\.weight": expected a \.safetensors file of this folder/,
    );
    write({ ...index.weight_map, "model.norm.weight": index.weight_map["model.embed_tokens.weight"]! });
    await expect(loadPolicy(directory)).rejects.toThrow(
      /tensor "model\.norm\.weight" is missing, though the index says/,
    );
    write({ ...index.weight_map, "model.norm.weight": "model-00009.safetensors" });
    await expect(loadPolicy(directory)).rejects.toMatchObject({ code: "ERR_RLSD_MODEL_FILE" });
  });

  test("an optimizer of another model", async () => {
    const policy = await tinyPolicy();
    const other = await tinyPolicy({ hiddenSize: 32 });
    const directory = temporaryFolder();
    await other.save(directory, { optimizer: true });
    await expect(policy.loadOptimizer(directory)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL_FILE",
      message: expect.stringMatching(
        /exp_avg\.model\.embed_tokens\.weight": expected F32 \[37, 24\] but found F32 \[37, 32\]/,
      ),
    });
    await expect(policy.loadOptimizer(temporaryFolder())).rejects.toThrow(
      /optimizer\.safetensors: could not be opened/,
    );
    expect(await policy.generate(prompts(1), { maxTokens: 2, seed: 0 })).toHaveLength(1);
    await policy.dispose();
    await other.dispose();
  });
});
