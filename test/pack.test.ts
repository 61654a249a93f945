import { packTokens, RlsdError } from "../lib/index.js";

describe("packTokens", () => {
  it("puts the lists of sequences one after another", () => {
    const { values, cuSeqlens } = packTokens([Float32Array.of(-1, -2), [], Float64Array.of(-0.5), [3, 4]]);
    expect(values).toEqual(Float32Array.of(-1, -2, -0.5, 3, 4));
    expect(cuSeqlens).toEqual(Int32Array.of(0, 2, 2, 3, 5));
    expect(packTokens([])).toEqual({ values: new Float32Array(0), cuSeqlens: Int32Array.of(0) });
  });

  it("makes ids of ids, and a mask of masks", () => {
    const ids = packTokens([Int32Array.of(16777217, 2), new Int32Array(0), Int32Array.of(3)]); // beyond what a float32 holds
    expect(ids).toEqual({ values: Int32Array.of(16777217, 2, 3), cuSeqlens: Int32Array.of(0, 2, 2, 3) });
    expect(packTokens([Uint8Array.of(1, 0), Uint8Array.of(1)]).values).toEqual(Uint8Array.of(1, 0, 1));
    const mixed: readonly ArrayLike<number>[] = [Int32Array.of(1), Float32Array.of(0.5)];
    expect(packTokens(mixed).values).toEqual(Float32Array.of(1, 0.5));
  });

  it("copies", () => {
    const list = Float32Array.of(-1);
    const { values } = packTokens([list]);
    list[0] = -9;
    expect(values[0]).toBe(-1);
  });

  it.each<[unknown, string]>([
    [undefined, "one list a sequence for sequences but received undefined"],
    [Float32Array.of(1), "one list a sequence for sequences but received Float32Array(1)"],
    [[[1], undefined], "an array of numbers, one a token, for sequences[1] but received undefined"],
    [[[1, "2"]], 'a number for sequences[0][1] but received "2"'],
    [[BigInt64Array.of(1n)], "for sequences[0] but received BigInt64Array(1)"],
    [[new DataView(new ArrayBuffer(4))], "for sequences[0]"],
  ])("names what is no list: %#", (sequences, words) => {
    expect(() => packTokens(sequences as never)).toThrow(RlsdError);
    expect(() => packTokens(sequences as never)).toThrow(words);
  });

  it("refuses memory that was given away, and goes by the elements that there are", () => {
    const gone = Float32Array.of(1, 2);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    for (const lists of [[gone], [[1], gone]]) {
      const message = expect.stringContaining("received one that cannot be read");
      expect(() => packTokens(lists)).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT", message }));
    }
    const forged = Object.defineProperty(Float32Array.of(1, 2), "length", { value: 1e9 });
    expect(packTokens([forged, [3]]).values).toEqual(Float32Array.of(1, 2, 3));
  });
});
