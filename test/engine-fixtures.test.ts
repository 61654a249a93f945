import { join } from "node:path";
import { rowCoefficient } from "../lib/index.js";
import type { EnginePolicy } from "../lib/policy/engine-policy.js";
import { loadPolicy } from "../lib/policy/load.js";
import { type HostTensor, readTensors, relativeError } from "./support/safetensors.js";

const folder = (name: string): string => join(__dirname, "fixtures/models", name);
const TOLERANCE = 2e-5;

interface Row {
  readonly ids: Int32Array;
  /** Where the row starts after its padding, and its place in the padded tensors. */
  readonly start: number;
  readonly b: number;
}

function rowsOf(expected: Map<string, HostTensor>): { rows: Row[]; length: number } {
  const ids = expected.get("input_ids")!;
  const mask = expected.get("attention_mask")!;
  const [batch, length] = ids.shape as [number, number];
  const rows = Array.from({ length: batch }, (_, b) => {
    const start = mask.data.slice(b * length, (b + 1) * length).indexOf(1);
    return { ids: Int32Array.from(ids.data.slice(b * length + start, (b + 1) * length)), start, b };
  });
  return { rows, length };
}

const scored = (row: Row) => ({ prompt: row.ids.slice(0, 1), completion: row.ids.slice(1) });

/** The adapters by the PEFT library on transformers, the others by transformers alone. */
const MODELS = [
  "qwen3-tied",
  "qwen2-bias",
  "llama-gqa",
  "smollm3-nope",
  "mistral-window",
  "qwen3-window",
  "gemma3-window",
  "qwen3-yarn",
  "olmo2-gqa",
  "granite-tied",
  "phi3-longrope",
  "olmo3-yarn",
  "qwen2-bias-lora",
  "qwen3-tied-lora",
  "gemma3-window-lora",
  "olmo2-gqa-lora",
  "granite-tied-lora",
  "phi3-longrope-lora",
];

describe.each(MODELS)("%s computes what transformers computes", (name) => {
  const expected = readTensors(join(folder(name), "expected.safetensors"));
  const { rows, length } = rowsOf(expected);
  let policy: EnginePolicy;
  beforeAll(async () => {
    policy = await loadPolicy(folder(name));
  });
  afterAll(() => policy.dispose());

  test("logits, with rows that were padded on the left", async () => {
    const logits = expected.get("logits")!;
    const v = logits.shape[2] as number;
    expect(rows.some((row) => row.start > 0)).toBe(true);
    const actual: number[] = [];
    const wanted: number[] = [];
    for (const row of rows) {
      actual.push(...(await policy.logits(row.ids)));
      wanted.push(...logits.data.subarray((row.b * length + row.start) * v, (row.b + 1) * length * v));
    }
    expect(relativeError(actual, wanted)).toBeLessThan(TOLERANCE);
  });

  test("log-probs of every token", async () => {
    const logProbs = expected.get("token_logprobs")!;
    const scores = await policy.score(rows.map(scored));
    const actual = scores.flatMap((s) => [...s]);
    const wanted = rows.flatMap((row) => [
      ...logProbs.data.subarray(row.b * (length - 1) + row.start, (row.b + 1) * (length - 1)),
    ]);
    expect(relativeError(actual, wanted)).toBeLessThan(TOLERANCE);
  });

  test("the loss and the gradient of every parameter", async () => {
    const sequences = rows.map(scored);
    const n = sequences.reduce((total, s) => total + s.completion.length, 0);
    const objective = rowCoefficient({ reduction: "token-sum" });
    const result = await policy.accumulate({ sequences, advantages: new Float32Array(n).fill(-1 / n) }, objective);
    const loss = -result.logProbs.reduce((a, b) => a + b, 0) / n;
    expect(Math.abs(loss - expected.get("loss")!.data[0]!)).toBeLessThan(TOLERANCE * loss);
    const errors: Record<string, number> = {};
    for (const parameter of policy.parameterNames) {
      const wanted = expected.get(`grad.${parameter}`)!;
      const error = relativeError(await policy.readParameter(parameter, "gradient"), wanted.data);
      if (!(error < TOLERANCE)) errors[parameter] = error;
    }
    expect(errors).toEqual({});
    expect([...expected.keys()].filter((k) => k.startsWith("grad.")).length).toBe(policy.parameterNames.length);
  });

  test("the greedy continuation, past the end token", async () => {
    const greedy = expected.get("greedy")!;
    const prompt = Int32Array.from(greedy.data.slice(0, length));
    const [[completion]] = (await policy.generate([prompt], {
      maxTokens: greedy.data.length - length,
      temperature: 0,
      stopTokenIds: [],
      seed: 1,
    })) as [[{ tokenIds: Int32Array; logProbs: Float32Array; finish: string }]];
    expect([...completion.tokenIds]).toEqual([...greedy.data.slice(length)]);
    expect(completion.finish).toBe("length");
    const [again] = await policy.score([{ prompt, completion: completion.tokenIds }]);
    expect(again).toEqual(completion.logProbs);
  });
});

test("bfloat16 weights load exactly and are computed with as float32", async () => {
  const expected = readTensors(join(folder("qwen3-tied-bf16"), "expected.safetensors"));
  const { rows, length } = rowsOf(expected);
  const policy = await loadPolicy(folder("qwen3-tied-bf16"));
  const logits = expected.get("logits")!;
  const v = logits.shape[2] as number;
  for (const row of rows) {
    const wanted = logits.data.subarray((row.b * length + row.start) * v, (row.b + 1) * length * v);
    expect(relativeError(await policy.logits(row.ids), wanted)).toBeLessThan(TOLERANCE);
  }
  await policy.dispose();
});
