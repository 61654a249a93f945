import { existsSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";
import {
  createChatTemplate,
  creditCompletions,
  type EnginePolicy,
  evaluateModel,
  exportModel,
  grpo,
  loadChatTemplate,
  loadPolicy,
  loadTokenizer,
  RlsdError,
  readMetrics,
  readRunConfig,
  readSamples,
  reportRun,
} from "../lib/index.js";
import { ids, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

let policy: EnginePolicy;
let teacher: EnginePolicy;
beforeAll(async () => {
  policy = await tinyPolicy();
  teacher = await tinyPolicy({}, { seed: 2 });
});
afterAll(async () => {
  await policy.dispose();
  await teacher.dispose();
});

const one = [{ prompt: ids(1, 2), completion: ids(3, 4) }];
const sampling = { maxTokens: 2, seed: 1 };
const batch = { sequences: one, advantages: Float32Array.of(1) };
const pair = () => ({ sequences: one, teacher, teacherSequences: one });
const jsd = { divergence: "jsd" } as const;

describe("a wrong argument is an RlsdError that says what was expected", () => {
  const wrong = (value: unknown) => value as never;
  const cases: [string, () => Promise<unknown>, RegExp][] = [
    ["prompts", () => policy.generate(wrong({}), sampling), /an array of prompts for prompts/],
    ["count", () => policy.generate([ids(1)], { ...sampling, count: 1e9 }), /at most 4194304 for count/],
    [
      "count of many",
      () => policy.generate([ids(1), ids(2)], { ...sampling, count: 4e6 }),
      /at most 2097152 for count/,
    ],
    ["stopTokenIds", () => policy.generate([ids(1)], { ...sampling, stopTokenIds: wrong(5) }), /an array of token ids/],
    [
      "onCompletion",
      () => policy.generate([ids(1)], { ...sampling, onCompletion: wrong("x") }),
      /a function for onCompletion/,
    ],
    ["onToken", () => policy.generate([ids(1)], { ...sampling, onToken: wrong("x") }), /a function for onToken/],
    ["signal", () => policy.generate([ids(1)], { ...sampling, signal: wrong({}) }), /an AbortSignal for signal/],
    ["temperature", () => policy.generate([ids(1)], { ...sampling, temperature: 1e-40 }), /0, which is greedy, or a/],
    ["temperature", () => policy.generate([ids(1)], { ...sampling, temperature: 1e300 }), /for temperature/],
    ["score's signal", () => policy.score(one, { signal: wrong({}) }), /an AbortSignal for signal/],
    ["score's temperature", () => policy.score(one, { temperature: 1e-40 }), /for temperature/],
    ["score's temperature", () => policy.score(one, { temperature: 1e300 }), /for temperature/],
    ["a request", () => policy.score([wrong(null)]), /\{ prompt, completion \} for requests\[0\] but received null/],
    ["accumulate's signal", () => policy.accumulate(batch, grpo(), { signal: wrong({}) }), /an AbortSignal/],
    ["a sequence", () => policy.accumulate({ ...batch, sequences: [wrong(1)] }, grpo()), /batch\.sequences\[0\]/],
    ["distill's batch", () => policy.distill(wrong(undefined), jsd), /an object for batch/],
    ["distill's signal", () => policy.distill(pair(), jsd, { signal: wrong({}) }), /an AbortSignal/],
    ["distill's temperature", () => policy.distill(pair(), { ...jsd, temperature: 1e-40 }), /for temperature/],
    ["betas", () => policy.step({ learningRate: 1, betas: wrong(null) }), /two numbers for betas but received null/],
    ["three betas", () => policy.step({ learningRate: 1, betas: wrong([0.9, 0.9, 0.9]) }), /two numbers for betas/],
    ["maxGradientNorm", () => policy.step({ learningRate: 1, maxGradientNorm: wrong("1") }), /above 0 for maxGradient/],
    ["optimizer", () => policy.save("unused", { optimizer: wrong("yes") }), /a boolean for optimizer/],
    ["save's signal", () => policy.save("unused", { signal: wrong({}) }), /an AbortSignal/],
    ["loadOptimizer", () => policy.loadOptimizer(wrong(undefined)), /a path for directory/],
    ["files", () => tinyPolicy({}, { files: { "tokenizer.json": wrong(5) } }), /a Uint8Array for files\["tokenizer/],
    ["scaleResidual", () => tinyPolicy({}, { scaleResidual: wrong("no") }), /a boolean for scaleResidual/],
    ["endTokenIds", () => tinyPolicy({ endTokenIds: wrong(1) }), /an array of token ids for config\.endTokenIds/],
    ["headDim", () => tinyPolicy({ headDim: Number.NaN }), /a finite number for config\.headDim but received NaN/],
    ["vocabSize", () => tinyPolicy({ vocabSize: wrong(1n) }), /a finite number for config\.vocabSize/],
    ["tieEmbeddings", () => tinyPolicy({ tieEmbeddings: wrong(null) }), /a boolean for config\.tieEmbeddings/],
    ["an end token", () => tinyPolicy({ endTokenIds: wrong([null]) }), /config\.endTokenIds\[0\] but received null/],
    [
      "rope's theta",
      () => tinyPolicy({ rope: wrong({ type: "default" }) }),
      /config\.rope\.theta but received undefined/,
    ],
    ["rope's type", () => tinyPolicy({ rope: wrong({ theta: 1 }) }), /an object with type and theta for config\.rope/],
    ["gradients", async () => policy.activationBytes(1, wrong("yes")), /a boolean for gradients/],
    ["rope", () => tinyPolicy({ rope: wrong(null) }), /an object with type and theta for config\.rope/],
  ];
  test.each(cases)("%s", async (_, call, message) => {
    const error = await call().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(RlsdError);
    expect(error).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(message) });
    expect(existsSync("unused")).toBe(false);
  });
});

test("files of a new policy have the names of a model's own, and no path out of its folder", async () => {
  const folder = temporaryFolder();
  await expect(tinyPolicy({}, { files: { "../escaped": "x" } })).rejects.toThrow(/Unknown field files\.\.\.\/escaped/);
  await expect(tinyPolicy({}, { files: { "tokeniser.json": "{}" } })).rejects.toThrow(/Did you mean tokenizer\.json/);
  const made = await tinyPolicy({}, { files: { "chat_template.jinja": "{{ messages }}" } });
  await made.save(join(folder, "model"));
  expect(existsSync(join(folder, "model", "chat_template.jinja"))).toBe(true);
  await made.dispose();
});

test("a new policy ends where it ends when it is loaded again", async () => {
  const files = { "generation_config.json": '{ "eos_token_id": [5, 6] }' };
  await using made = await tinyPolicy({ endTokenIds: [1] }, { files });
  const folder = join(temporaryFolder(), "model");
  await made.save(folder);
  await using loaded = await loadPolicy(folder);
  expect(made.endTokenIds).toEqual([5, 6]);
  expect(loaded.endTokenIds).toEqual([5, 6]);
  const broken = tinyPolicy({}, { files: { "generation_config.json": "{" } });
  await expect(broken).rejects.toMatchObject({ code: "ERR_RLSD_MODEL_FILE" });
});

test("logits for which there is no room are refused, and the policy goes on", async () => {
  await using wide = await tinyPolicy({
    vocabSize: 2_000_000,
    hiddenSize: 2,
    numHeads: 1,
    numKvHeads: 1,
    maxLength: 9000,
  });
  await expect(wide.logits(new Int32Array(9000))).rejects.toMatchObject({
    code: "ERR_RLSD_OUT_OF_MEMORY",
    message: expect.stringMatching(/18000000000 logits, 67\.1 GiB .*score\(\) gives log-probs/),
  });
  expect(await wide.score(one)).toHaveLength(1);
});

test("generate samples what it was asked when it was called", async () => {
  const prompt = ids(5, 6, 7);
  const options = { maxTokens: 6, seed: 4, temperature: 0.5 };
  const expected = await policy.generate([prompt], options);
  const busy = policy.score(one);
  const [asked, changed] = [prompt.slice(), { ...options }];
  const pending = policy.generate([asked], changed);
  asked.fill(9);
  changed.maxTokens = 1;
  expect(await pending).toEqual(expected);
  await busy;
});

test("arrays of another realm are arrays", async () => {
  const theirs = (code: string) => runInNewContext(code) as never;
  const request = { prompt: theirs("Int32Array.of(1, 2)"), completion: theirs("Int32Array.of(3, 4)") };
  expect(await policy.score([request])).toEqual(await policy.score(one));
  const advantages = theirs("Float32Array.of(1)");
  const { loss } = await policy.accumulate({ sequences: [request], advantages }, grpo());
  expect(loss).toBe(-1);
  await policy.step({ learningRate: 0 });
});

test("what reads a folder says that it wants a path", async () => {
  const calls: ((path: never) => Promise<unknown>)[] = [
    loadPolicy,
    loadTokenizer,
    loadChatTemplate,
    readRunConfig,
    (path) => readMetrics(path).next(),
    (path) => readSamples(path).next(),
    reportRun,
    (path) => creditCompletions(path, []).next(),
    (path) => evaluateModel(path, [], "unused"),
    (path) => evaluateModel("unused", [], path),
    (path) => exportModel(path, "unused"),
    (path) => policy.withAdapters(path),
  ];
  for (const call of calls) {
    for (const path of [undefined, 5, ""]) {
      const error = await call(path as never).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(/a path for/) });
    }
  }
  expect(() => createChatTemplate(5 as never)).toThrow("Expected Jinja source for source but received 5.");
});

test("what runs by hooks and options knows their names and takes lists of files", async () => {
  const calls: [() => Promise<unknown>, RegExp][] = [
    [() => evaluateModel("unused", [], "new", {}, { sginal: undefined } as never), /Did you mean signal/],
    [() => evaluateModel("unused", [], "new", {}, { loadPolicy: 5 } as never), /a function for hooks\.loadPolicy/],
    [() => evaluateModel("unused", "rows.jsonl" as never, "new"), /an array of paths for files/],
    [() => creditCompletions("unused", [], {}, { limt: 5 } as never).next(), /Did you mean limit/],
    [() => creditCompletions("unused", [5] as never).next(), /a path for files\[0\]/],
    [() => reportRun("unused", { step: 5 } as never), /Did you mean steps/],
    [() => reportRun("unused", { onSample: 5 } as never), /a function for onSample/],
  ];
  for (const [call, message] of calls) {
    const error = await call().catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(message) });
  }
});

test("metrics and samples of a folder that is no run are an error, not an empty list", async () => {
  const folder = temporaryFolder();
  for (const lines of [readMetrics(folder), readSamples(join(folder, "missing"))]) {
    await expect(lines.next()).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
  }
});

test("a tokenizer and a chat template say what they take", async () => {
  const tokenizer = await loadTokenizer(join(__dirname, "../assets/clock"));
  expect(tokenizer.decode(tokenizer.encode("1", { addSpecialTokens: undefined }))).toBe("1");
  expect(() => tokenizer.encode(null as never)).toThrow("Expected a text for text but received null.");
  expect(() => tokenizer.encode("1", { addSpecial: true } as never)).toThrow(/Fields: addSpecialTokens/);
  for (const call of [tokenizer.decode, tokenizer.pieces]) {
    for (const ids of [undefined, null, 0, "ab"]) {
      expect(() => call(ids as never)).toThrow(/an array of token ids for ids/);
    }
  }
  expect(() => tokenizer.decode([0], { skipSpecial: true } as never)).toThrow(/Fields: skipSpecialTokens/);
  const template = createChatTemplate("{{ messages[0].content }}");
  expect(() => template.render("hello" as never)).toThrow(/an array of \{ role, content \} for messages/);
  expect(() => template.render([], { addGeneration: true } as never)).toThrow(/Unknown field options.addGeneration/);
  expect(() => createChatTemplate("x", null as never)).toThrow(/an object for config/);
});
