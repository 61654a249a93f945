import { runInNewContext } from "node:vm";
import { empty, grpo, policyLossSync, tensor } from "../lib/index.js";

describe("tensor()", () => {
  it.each([
    [
      "a list",
      [1, 2],
      undefined,
      "a Float32Array, or a Uint16Array of f16 or bf16 bits, for data but received an array",
    ],
    ["numbers of 64 bits", new Float64Array(2), "f32", "for data but received Float64Array(2)"],
    ["nothing", null, undefined, "for data but received null"],
    ["bits of no dtype", new Uint16Array(2), undefined, "for dtype but received undefined. 16-bit data must say which"],
    ["no dtype of ours", new Float32Array(2), "f64", 'for dtype but received "f64"'],
    [
      "floats as bf16",
      new Float32Array(2),
      "bf16",
      "a Uint16Array for data of dtype bf16 but received Float32Array(2)",
    ],
    ["bits as f32", new Uint16Array(2), "f32", "a Float32Array for data of dtype f32 but received Uint16Array(2)"],
    ["too few", new Float32Array(1), "f32", "2 elements for shape [2] but data has 1"],
  ])("says of %s what is wrong with it", (_, data, dtype, words) => {
    const call = () => tensor(data as never, [2], dtype as never);
    expect(call).toThrow(words);
    expect(call).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
  });

  it("takes an array of another realm, as policyLoss does", () => {
    const values: Float32Array = runInNewContext("Float32Array.of(1, 2)");
    expect(values instanceof Float32Array).toBe(false);
    const logits = tensor(values, [1, 2]);
    expect(logits).toMatchObject({ dtype: "f32", shape: [1, 2] });
    const batch = { student: { logits }, tokenIds: Int32Array.of(0), cuSeqlens: Int32Array.of(0, 1) };
    const { logProbs } = policyLossSync({ ...batch, advantages: Float32Array.of(1) }, grpo());
    expect(logProbs[0]).toBeCloseTo(-Math.log(1 + Math.E), 6);
  });
});

describe("empty()", () => {
  it("has room for more bytes than one byte view", () => {
    const large = empty([2 ** 31 + 1], "bf16"); // its memory is not touched
    expect(large.data.length).toBe(2 ** 31 + 1);
    expect(large.data[2 ** 31]).toBe(0);
    large[Symbol.dispose]();
  });

  it.each([[[1e6, 1e6]], [[2 ** 40]]])("of %j is a typed error that says how much was asked for", (shape) => {
    const call = () => empty(shape, "f32");
    expect(call).toThrow(expect.objectContaining({ code: "ERR_RLSD_OUT_OF_MEMORY" }));
    expect(call).toThrow(/There is no room for a tensor of \d+ elements, [\d.]+ GiB/);
  });
});
