import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createPolicy, loadPolicy } from "../lib/index.js";
import { sameAdapters } from "../lib/policy/lora.js";
import { readTensors, relativeError } from "./support/safetensors.js";
import { ids, PHI3, TINY, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const model = join(__dirname, "fixtures/models/phi3-longrope");
const text = Int32Array.from({ length: 70 }, (_, i) => (7 * i + 3) % 61);
const config = (folder: string): unknown => JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));

describe("a model whose positions are scaled by longrope", () => {
  test("reads more than before the scaling where that is asked for, by other factors for all", async () => {
    await using short = await loadPolicy(model);
    await using long = await loadPolicy(model, { maxLength: 65 });
    await using exact = await loadPolicy(model, { maxLength: 64 });
    expect([short, long, exact].map((policy) => policy.maxLength)).toEqual([64, 65, 64]);
    expect(await exact.logits(text.slice(0, 20))).toEqual(await short.logits(text.slice(0, 20)));
    expect(await long.logits(text.slice(0, 20))).not.toEqual(await short.logits(text.slice(0, 20)));
    await expect(short.score([{ prompt: text.slice(0, 1), completion: text.slice(1) }])).rejects.toMatchObject({
      code: "ERR_RLSD_TOO_LONG",
      message: expect.stringMatching(
        /longest sequence is 64\. With maxLength, up to 512, it is loaded for longer ones\./,
      ),
    });
    await expect(long.score([{ prompt: text.slice(0, 1), completion: text.slice(1) }])).rejects.toMatchObject({
      code: "ERR_RLSD_TOO_LONG",
    });
  });

  test("computes long sequences as transformers does", async () => {
    const expected = readTensors(join(model, "expected.safetensors"));
    await using policy = await loadPolicy(model, { maxLength: 512 });
    const logits = await policy.logits(Int32Array.from(expected.get("long.input_ids")!.data));
    const wanted = expected.get("long.logits")!.data;
    expect(logits).toHaveLength(70 * 61);
    expect(relativeError(logits.slice(-wanted.length), wanted)).toBeLessThan(2e-5);
  });

  test("has the same log-probs for a token whatever follows it, and as drawn", async () => {
    await using policy = await loadPolicy(model, { maxLength: 512 });
    const prompt = text.slice(0, 60);
    const [whole] = await policy.score([{ prompt: text.slice(0, 1), completion: text.slice(1) }]);
    const [part] = await policy.score([{ prompt: text.slice(0, 1), completion: text.slice(1, 50) }]);
    expect(whole!.slice(0, 49)).toEqual(part);
    const [group] = await policy.generate([prompt], { maxTokens: 12, seed: 3, stopTokenIds: [] });
    const { tokenIds, logProbs } = group![0]!;
    expect(tokenIds).toHaveLength(12);
    expect((await policy.score([{ prompt, completion: tokenIds }]))[0]).toEqual(logProbs);
  });

  test("keeps its names and its file's words when it is saved, and the longest sequence it was loaded for where it shares", async () => {
    await using policy = await loadPolicy(model, { maxLength: 512 });
    await using copy = await policy.snapshot();
    await using adapted = await policy.withLora();
    await using merged = await adapted.merge();
    for (const other of [copy, adapted, merged]) {
      expect(other.maxLength).toBe(512);
      expect(await other.logits(text)).toEqual(await policy.logits(text));
    }
    const folder = join(temporaryFolder(), "saved");
    await policy.save(folder);
    expect(config(folder)).toEqual(config(model));
    const names = (path: string) => [...readTensors(join(path, "model.safetensors")).keys()].sort();
    expect(names(folder)).toEqual(names(model));
    expect(names(folder)).toContain("model.layers.1.self_attn.qkv_proj.weight");
    await using again = await loadPolicy(folder, { maxLength: 512 });
    expect(await again.logits(text)).toEqual(await policy.logits(text));
  });

  test("cannot read more than its file says", async () => {
    await expect(loadPolicy(model, { maxLength: 513 })).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(/at most 512, which .*phi3-longrope reads, for maxLength but received 513/),
    });
    await expect(loadPolicy(model, { maxLength: 0 })).rejects.toThrow(/maxLength/);
  });
});

test("any model may be loaded for shorter sequences", async () => {
  const llama = join(__dirname, "fixtures/models/llama-gqa");
  await using whole = await loadPolicy(llama);
  await using policy = await loadPolicy(llama, { maxLength: 8 });
  expect(policy.maxLength).toBe(8);
  expect(await policy.logits(ids(1, 2, 3))).toEqual(await whole.logits(ids(1, 2, 3)));
  await expect(policy.generate([ids(1, 2, 3)], { maxTokens: 6, seed: 1 })).rejects.toThrow(/longest sequence is 8\.$/);
  await expect(loadPolicy(llama, { maxLength: whole.maxLength + 1 })).rejects.toThrow(/maxLength/);
  await expect(createPolicy(TINY, { maxLength: 8 } as never)).rejects.toThrow(/maxLength/);
});

describe("adapters of fused matrices", () => {
  const ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"] as const;

  test.each([
    [undefined, ALL],
    [["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const, ALL],
    [["down_proj", "qkv_proj"] as const, ["qkv_proj", "down_proj"]],
    [["up_proj", "gate_proj"] as const, ["gate_up_proj"]],
  ])("%j are those of %j", async (targets, expected) => {
    await using base = await tinyPolicy(PHI3);
    await using policy = await base.withLora({ rank: 2, targets });
    expect(policy.lora?.targets).toEqual(expected);
    const names = policy.parameterNames.filter((name) => name.includes("layers.0") && name.includes("lora_A"));
    expect(names).toHaveLength(expected.length);
    for (const name of expected) expect(names.some((full) => full.includes(`.${name}.lora_A`))).toBe(true);
  });

  test.each([[["q_proj"]], [["q_proj", "v_proj", "o_proj"]], [["gate_proj", "qkv_proj"]], [[]]])(
    "%j are refused",
    async (targets) => {
      await using base = await tinyPolicy(PHI3);
      await expect(base.withLora({ targets: targets as never })).rejects.toMatchObject({
        code: "ERR_RLSD_INVALID_ARGUMENT",
        message: expect.stringMatching(/a list of qkv_proj, o_proj, gate_up_proj, down_proj for targets/),
      });
    },
  );

  test("are not of a model whose matrices are apart", async () => {
    await using base = await tinyPolicy();
    await expect(base.withLora({ targets: ["qkv_proj"] })).rejects.toThrow(
      /a list of q_proj, k_proj, .*, down_proj for/,
    );
    await using fused = await tinyPolicy(PHI3);
    await using adapted = await fused.withLora({ rank: 2 });
    const folder = join(temporaryFolder(), "adapters");
    await adapted.save(folder);
    await expect(base.withAdapters(folder)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringMatching(/qkv_proj.*is no adapter that this engine computes on this model/),
    });
  });

  test("are named so in PEFT's file, and mean what the names of their parts mean together", async () => {
    await using base = await tinyPolicy(PHI3);
    await using adapted = await base.withLora({ rank: 2 });
    const folder = join(temporaryFolder(), "adapters");
    await adapted.save(folder);
    const json = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8")) as { target_modules: string[] };
    expect(json.target_modules).toEqual([...ALL]);
    const lora = { rank: 2, alpha: 4, rankStabilized: false };
    const apart = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
    expect(sameAdapters(adapted.lora, { ...lora, targets: apart })).toBe(true);
    expect(sameAdapters(adapted.lora, { ...lora, targets: apart.slice(1) })).toBe(false);
    expect(sameAdapters(adapted.lora, { ...lora, alpha: 3, targets: ALL })).toBe(false);
    expect(sameAdapters(adapted.lora, undefined)).toBe(false);
    expect(sameAdapters(undefined, undefined)).toBe(true);
  });
});
