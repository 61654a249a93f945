import {
  distillLossSync,
  empty,
  grpo,
  type PolicyBatch,
  policyLoss,
  policyLossSync,
  type Scores,
  tensor,
  tokenLogProbsSync,
} from "../lib/index.js";

const [N, V, H] = [2, 3, 4];
const logits = () => tensor(Float32Array.of(0, 1, 2, 2, 1, 0), [N, V]);
const batchOf = (student: Scores): PolicyBatch => ({
  student,
  tokenIds: Int32Array.of(0, 1),
  cuSeqlens: Int32Array.of(0, N),
  advantages: Float32Array.of(1),
});

describe("a view of tokens", () => {
  const f32 = () => new Float32Array(N).fill(-1);
  const hidden = { hidden: empty([N, H], "f32"), head: empty([V, H], "f32") };

  it.each<[string, object, RegExp]>([
    ["logits and hidden states", { logits: logits(), ...hidden }, /Unknown field student\.hidden/],
    ["logits and log-probs", { logits: logits(), logProbs: f32() }, /Unknown field student\.logProbs/],
    ["hidden states and log-probs", { ...hidden, logProbs: f32() }, /Unknown field student\.logProbs/],
    ["log-probs with a vocabulary", { logProbs: f32(), vocabSize: V }, /Unknown field student\.vocabSize/],
    ["a misspelt field", { logits: logits(), vocabsize: undefined }, /Did you mean vocabSize/],
    ["nothing", {}, /\{ logits \}, \{ hidden, head \} or \{ logProbs \}|token ids/],
    ["undefined logits", { logits: undefined }, /shape \(\.\.\., V\) for student\.logits but received undefined/],
    ["undefined log-probs", { logProbs: undefined }, /student\.logProbs but received undefined/],
    ["no vocabulary", { logits: empty([N, 0], "f32") }, /\(\.\.\., V\) with V at least 1 for student\.logits/],
    ["no width", { hidden: empty([N, 0], "f32"), head: empty([V, 0], "f32") }, /with H at least 1 for student\.hidden/],
    ["no rows in the head", { hidden: empty([N, H], "f32"), head: empty([0, H], "f32") }, /\(V, 4\) for student\.head/],
  ])("is of one kind and not empty: %s", async (_, student, message) => {
    expect(() => policyLossSync(batchOf(student as never), grpo())).toThrow(message);
    await expect(policyLoss(batchOf(student as never), grpo())).rejects.toThrow(message);
  });

  it("may name the fields of another kind when they are undefined", () => {
    const view = (whole: boolean) => (whole ? { logits: logits() } : { logProbs: f32() });
    const { loss } = policyLossSync(batchOf(view(true)), grpo());
    expect(policyLossSync(batchOf({ logits: logits(), logProbs: undefined }), grpo()).loss).toBe(loss);
    expect(policyLossSync(batchOf({ logits: undefined, ...view(false) }), grpo()).gradient.logits).toBeUndefined();
    const { gradient } = policyLossSync(batchOf({ ...hidden, logits: undefined, logProbs: undefined }), grpo());
    expect(gradient.hidden?.shape).toEqual([N, H]);
  });
});

it("tokenLogProbs says what ids it wants", () => {
  const message = "Expected an Int32Array of token ids for tokenIds but received undefined.";
  expect(() => tokenLogProbsSync({ logits: logits() }, undefined as never)).toThrow(message);
});

it("a tensor says what shape it wants", () => {
  for (const shape of [undefined, "2", 2, null]) {
    expect(() => tensor(new Float32Array(2), shape as never)).toThrow(/an array of dimensions for shape/);
    expect(() => empty(shape as never, "f32")).toThrow(/an array of dimensions for shape/);
  }
});

describe.each([1e-300, 1e-40, 1e39, 1e300])("what float32 cannot divide by, %p", (value) => {
  it("is no temperature and no softcap", () => {
    const view = { logits: logits() };
    const pair = { student: view, teacher: view, cuSeqlens: Int32Array.of(0, N) };
    for (const name of ["temperature", "logitSoftcap"]) {
      const call = { [name]: value };
      expect(() => tokenLogProbsSync(view, Int32Array.of(0, 1), call)).toThrow(`for ${name} but`);
      expect(() => distillLossSync(pair, { divergence: "jsd", ...call })).toThrow(`for ${name} but`);
    }
  });
});

it.each([2 ** -126, 2 ** 126])("temperature %p is computed with", (temperature) => {
  const { logProbs } = tokenLogProbsSync({ logits: logits() }, Int32Array.of(2, 2), { temperature });
  expect(logProbs[0]).toBeCloseTo(temperature < 1 ? 0 : -Math.log(V), 6);
  expect(logProbs[1]! / (temperature < 1 ? -2 / temperature : -Math.log(V))).toBeCloseTo(1, 6);
  const { gradient } = policyLossSync(batchOf({ logits: logits() }), grpo({ temperature }));
  expect([...gradient.logits!.data].every(Number.isFinite)).toBe(true);
});
