import { empty, RlsdError, tensor, toDType } from "../lib/index.js";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../lib/rounding.js";

const EDGES = [
  0,
  -0,
  1,
  -1.5,
  1e-8,
  6e-5,
  65504,
  65519,
  65520,
  3.4e38,
  -3.4e38,
  Infinity,
  -Infinity,
  Number.NaN,
  1.00390625,
  1.01171875,
];
/** Of every size that float32 has. */
const spread = Float32Array.from({ length: 4096 }, (_, i) => Math.sin(i * 1.7) * 2 ** ((i % 260) - 130));
const numbers = Float32Array.of(...EDGES, ...spread);

describe.each([
  { dtype: "f16", bits: f16Bits, value: f16Value },
  { dtype: "bf16", bits: bf16Bits, value: bf16Value },
] as const)("toDType and $dtype", ({ dtype, bits, value }) => {
  test("rounds numbers to the nearest, ties to even", () => {
    const half = toDType(tensor(numbers, [2, numbers.length / 2]), dtype);
    expect(half).toMatchObject({ dtype, shape: [2, numbers.length / 2], device: "cpu" });
    expect(half.data).toEqual(Uint16Array.from(numbers, bits));
  });

  test("gives all 65536 their numbers, and takes these back as they are", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const wide = toDType(tensor(all, [65536], dtype), "f32");
    expect(wide.data).toEqual(Float32Array.from(all, value));
    const back = toDType(wide, dtype).data;
    expect(all.filter((i) => back[i] !== i && !Number.isNaN(value(i)))).toHaveLength(0);
  });
});

test("toDType goes between 16-bit types by one rounding, copies, and reads a view where it lies", () => {
  const half = toDType(tensor(numbers, [numbers.length]), "bf16");
  const other = toDType(half, "f16").data;
  expect(other).toEqual(Uint16Array.from(half.data, (b) => f16Bits(bf16Value(b))));
  const same = toDType(half, "bf16");
  expect(same.data).toEqual(half.data);
  same.data[0] = 7;
  expect(half.data[0]).toBe(0);
  const view = toDType(tensor(numbers.subarray(3, 5), [2]), "bf16");
  expect(view.data).toEqual(Uint16Array.of(bf16Bits(-1.5), bf16Bits(Math.fround(1e-8))));
});

test("what is no tensor or no dtype is refused; numbers as bits are told the way", () => {
  expect(() => toDType(numbers as never, "f16")).toThrow(RlsdError);
  expect(() => toDType(empty([1], "f32"), "f64" as never)).toThrow(/"f32", "f16" or "bf16" for dtype/);
  expect(() => tensor(numbers, [numbers.length], "f16")).toThrow(/made by toDType\(tensor\(data, shape\), dtype\)/);
  const gone = empty([1], "f32");
  gone[Symbol.dispose]();
  expect(() => toDType(gone, "f16")).toThrow(expect.objectContaining({ code: "ERR_RLSD_DISPOSED" }));
});
