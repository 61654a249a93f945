// What test/support/equality.ts makes quicker must stay what it was.
describe("expect() of typed arrays", () => {
  it("finds those equal that hold the same numbers", () => {
    const list = [Number.NaN, -0, 1];
    expect(Float32Array.from(list)).toEqual(Float32Array.from(list));
    expect({ inner: [Float64Array.from(list)] }).toEqual({ inner: [Float64Array.from(list)] });
    expect(new Uint8Array(4).subarray(1, 3)).toEqual(new Uint8Array(2));
  });

  it("finds no others equal", () => {
    expect(Float32Array.of(1, 2)).not.toEqual(Float32Array.of(1, 3));
    expect(Float32Array.of(-0)).not.toEqual(Float32Array.of(0));
    expect({ inner: [new Uint8Array(3)] }).not.toEqual({ inner: [new Uint8Array(2)] });
    expect(new Float32Array(2)).not.toEqual(new Int32Array(2));
    expect(() => expect(Int32Array.of(1, 2)).toEqual(Int32Array.of(1, 3))).toThrow(/-\s+3,\n\+\s+2,/);
  });
});
