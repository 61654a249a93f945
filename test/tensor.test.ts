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

  it("asks the memory itself what it is: no property can say otherwise", () => {
    const long = Object.defineProperty(new Float32Array(4), "length", { value: 1000 });
    expect(() => tensor(long, [1000])).toThrow("1000 elements for shape [1000] but data has 4");
    const buffer = Reflect.construct(ArrayBuffer, [16, { maxByteLength: 64 }]) as ArrayBuffer;
    Object.defineProperty(buffer, "resizable", { value: false });
    expect(() => tensor(new Float32Array(buffer), [4])).toThrow("a buffer of fixed size");
    const bare = Object.setPrototypeOf(new Float32Array(4), null);
    expect(tensor(bare, [4]).shape).toEqual([4]);
    expect(() => tensor(bare, [4], "bf16")).toThrow("but received Float32Array(4)");
  });

  it("reads each dimension once", () => {
    let reads = 0;
    const shape = Object.defineProperty([0, 4], 0, { get: () => (reads++ === 0 ? 1 : 1e6) });
    expect(tensor(new Float32Array(4), shape).shape).toEqual([1, 4]);
    expect(reads).toBe(1);
  });

  it.each<[string, unknown, string]>([
    ["no list", 4, "an array of dimensions for shape but received 4"],
    ["half a row", [0.5, 8], "a non-negative integer for shape[0] but received 0.5"],
    ["holes without end", new Array(2 ** 32 - 1), "a non-negative integer for shape[0] but received undefined"],
    [
      "dimensions without end",
      new Array(1e6).fill(1),
      "at most 64 dimensions for shape but received an array of 1000000",
    ],
    ["more than can be counted", [2 ** 40, 2 ** 40], "too many elements"],
  ])("says of a shape of %s what is wrong with it", (_, shape, words) => {
    for (const make of [() => tensor(new Float32Array(4), shape as never), () => empty(shape as never, "f32")]) {
      expect(make).toThrow(words);
      expect(make).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
    }
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

  it.each<[string, unknown[], string]>([
    ["no dtype", [[1e12], "f64"], 'Expected "f32", "f16" or "bf16" for dtype but received "f64"'],
    ["no device", [[2], "f32", null], 'Expected "cpu" or "cuda:<number>" for device but received null'],
    ["no name of a device", [[2], "f32", Symbol("cuda")], "for device but received a value of type symbol"],
  ])("refuses %s", (_, args, words) => {
    const call = () => empty(...(args as Parameters<typeof empty>));
    expect(call).toThrow(words);
    expect(call).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
  });

  it.each([[[1e6, 1e6]], [[2 ** 40]]])("of %j is a typed error that says how much was asked for", (shape) => {
    const call = () => empty(shape, "f32");
    expect(call).toThrow(expect.objectContaining({ code: "ERR_RLSD_OUT_OF_MEMORY" }));
    expect(call).toThrow(/There is no room for a tensor of \d+ elements, [\d.]+ GiB/);
  });
});
