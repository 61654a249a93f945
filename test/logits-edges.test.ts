import { execFileSync } from "node:child_process";
import { join } from "node:path";
import {
  type DType,
  empty,
  type PolicyBatch,
  type PolicyOut,
  policyLossSync,
  rlsd,
  type Tensor,
  tensor,
  tokenLogProbsSync,
} from "../lib/index.js";
import { asTensor, dtypes, randomLogits, softmaxRow, valuesOf } from "./support/logits.js";

const V = 1000;
const inf = Number.POSITIVE_INFINITY;

function batchOf(logits: Tensor, more: Partial<PolicyBatch> = {}): PolicyBatch {
  const rows = more.tokenIds?.length ?? logits.shape[0]!;
  return {
    student: { logits },
    tokenIds: Int32Array.from({ length: rows }, (_, i) => (i * 37) % V),
    cuSeqlens: Int32Array.of(0, rows),
    advantages: Float32Array.of(-1),
    ...more,
  };
}

const logitsOf = (rows: number, dtype: DType = "f32", seed = 5): Tensor =>
  asTensor(randomLogits(rows * V, 3, seed), [rows, V], dtype);
const rowOf = (t: Tensor, row: number) => t.data.subarray(row * V, (row + 1) * V);
const isAllZero = (data: Float32Array | Uint16Array): boolean => data.every((x) => Object.is(x, 0));

describe("masked tokens", () => {
  it.each(dtypes)("are never read, whatever their %s logits, ids and rows hold", (dtype) => {
    const poison = dtype === "f32" ? Number.NaN : 0x7fff;
    const logits = logitsOf(5, dtype);
    rowOf(logits, 1).fill(poison);
    rowOf(logits, 3).fill(poison);
    const batch = batchOf(logits, {
      tokenIds: Int32Array.of(1, -7, 2, 2 ** 31 - 1, 3),
      completionMask: Uint8Array.of(1, 0, 1, 0, 1),
      student: { logits, rows: Int32Array.of(0, 1, 2, -9, 4) },
    });
    const out = { logits: empty([5, V], dtype) };
    rowOf(out.logits, 1).fill(poison);
    rowOf(out.logits, 3).fill(0x1234);
    const got = policyLossSync(batch, rlsd(), { out });
    expect(got.stats).toMatchObject({ tokens: 3, nonFiniteRows: 0 });
    expect([got.logProbs[1], got.gradient.logProbs[1], got.tokenAdvantages[1]]).toEqual([0, 0, 0]);
    expect(isAllZero(rowOf(out.logits, 1))).toBe(true);
    // Row 3 is no token's: its mask's row is out of range.
    expect(rowOf(out.logits, 3).every((x) => x === 0x1234)).toBe(true);
    expect(isAllZero(rowOf(out.logits, 4))).toBe(false);
  });

  it("leave a row to the unmasked token that names it too", () => {
    const batch = batchOf(logitsOf(2), {
      tokenIds: Int32Array.of(4, 5),
      completionMask: Uint8Array.of(0, 1),
      student: { logits: logitsOf(2), rows: Int32Array.of(1, 1) },
    });
    const { gradient } = policyLossSync(batch, rlsd());
    expect(isAllZero(rowOf(gradient.logits!, 0))).toBe(true);
    expect(isAllZero(rowOf(gradient.logits!, 1))).toBe(false);
  });

  it.each([
    ["no token", [], [0]],
    ["only masked tokens", [0, 0], [0, 2]],
  ])("give loss 0 and no NaN for %s", (_, mask, cuSeqlens) => {
    const logits = tensor(new Float32Array(mask.length * V).fill(Number.NaN), [mask.length, V]);
    const got = policyLossSync(
      {
        student: { logits },
        tokenIds: new Int32Array(mask.length),
        cuSeqlens: Int32Array.from(cuSeqlens),
        completionMask: Uint8Array.from(mask),
        advantages: new Float32Array(cuSeqlens.length - 1).fill(2),
      },
      rlsd(),
    );
    expect(got.loss).toBe(0);
    expect(isAllZero(got.gradient.logits!.data)).toBe(true);
  });
});

describe("bad rows", () => {
  const spoilt: [string, (row: Float32Array | Uint16Array) => void][] = [
    ["a NaN", (row) => row.fill(Number.NaN, 900, 901)],
    ["+inf", (row) => row.fill(inf, 3, 4)],
    ["no finite logit", (row) => row.fill(-inf)],
    ["-inf at the target", (row) => row.fill(-inf, 74, 75)],
    ["NaN everywhere", (row) => row.fill(Number.NaN)],
  ];

  it.each(spoilt)("with %s fail after the call, or are left out", (_, spoil) => {
    const good = policyLossSync(batchOf(logitsOf(4)), rlsd());
    const logits = logitsOf(4);
    spoil(rowOf(logits, 2));
    const out = { logits: empty([4, V], "f32") };
    expect(() => policyLossSync(batchOf(logits), rlsd(), { out })).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_NON_FINITE", index: 2, count: 1 }),
    );
    expect(isAllZero(rowOf(out.logits, 2))).toBe(true);
    expect(rowOf(out.logits, 3)).toEqual(rowOf(good.gradient.logits!, 3));
    const skipped = policyLossSync(batchOf(logits), rlsd({ nonFinite: "skip" }), { inPlace: true });
    expect(skipped.stats).toMatchObject({ tokens: 4, nonFiniteRows: 1 });
    expect(skipped.loss).toBeCloseTo((good.loss * 3) / 4, 5);
    expect(logits.data).toEqual(out.logits.data);
  });

  it("of a teacher give no credit and are counted", () => {
    const teacher = logitsOf(4, "f32", 9);
    rowOf(teacher, 1).fill(Number.NaN, 5, 6);
    rowOf(teacher, 2).fill(inf, 5, 6);
    const got = policyLossSync(batchOf(logitsOf(4), { teacher: { logits: teacher } }), rlsd());
    expect(got.stats).toMatchObject({ nanTeacherRows: 2, nonFiniteRows: 0 });
    expect([...got.tokenAdvantages].map((a) => a === -1)).toEqual([false, true, true, false]);
  });
});

describe("log-probs", () => {
  it.each(dtypes)("of teacher and student are the same number for the same %s logits", (dtype) => {
    const teacher = { logits: logitsOf(7, dtype) };
    const got = policyLossSync(batchOf(logitsOf(7, dtype), { teacher }), rlsd({ creditMix: 1 }));
    expect(got.teacherLogProbs).toEqual(got.logProbs);
    expect([...got.evidenceWeights!].every((w) => w === 1)).toBe(true);
    expect([got.stats.deltaMean, got.stats.evidenceWeightMean]).toEqual([0, 1]);
  });

  it("keep their digits for a token that is all but certain", () => {
    for (const lead of [10, 30, 60, 80]) {
      const z = new Float64Array(V);
      z[5] = lead;
      const logits = asTensor(z, [1, V]);
      const { logProbs, entropy } = tokenLogProbsSync({ logits }, Int32Array.of(5), { entropy: true });
      const rest = (V - 1) * Math.exp(-lead);
      expect(logProbs[0]! / -Math.log1p(rest)).toBeCloseTo(1, 5);
      expect(entropy![0]! / (Math.log1p(rest) + (lead * rest) / (1 + rest))).toBeCloseTo(1, 5);
    }
  });

  it.each([20, 45, 80, 200, 1e4])("reach a token that is %d below the largest logit", (gap) => {
    const z = randomLogits(V, 1, 3);
    z[17] = -gap;
    const logits = asTensor(z, [1, V]);
    const expected = softmaxRow(valuesOf(logits), 17);
    const batch = batchOf(logits, { tokenIds: Int32Array.of(17) });
    const got = policyLossSync(batch, rlsd());
    expect(got.logProbs[0]! / expected.logProb).toBeCloseTo(1, 6);
    expect(got.stats.entropyMean).toBeCloseTo(expected.entropy, 5);
    const gradient = valuesOf(got.gradient.logits!);
    const g = got.gradient.logProbs[0]!;
    for (let v = 0; v < V; v++) {
      expect(Math.abs(gradient[v]! - g * ((v === 17 ? 1 : 0) - expected.p[v]!))).toBeLessThan(1e-6);
    }
  });

  it("are never above 0", () => {
    for (let seed = 0; seed < 50; seed++) {
      const logits = asTensor(randomLogits(V, seed / 5, seed), [1, V]);
      const { logProbs } = tokenLogProbsSync({ logits }, Int32Array.of(seed));
      expect(logProbs[0]).toBeLessThanOrEqual(0);
    }
    const one = tokenLogProbsSync({ logits: asTensor([3], [1, 1]) }, Int32Array.of(0), { entropy: true });
    expect([one.logProbs[0], one.entropy![0]]).toEqual([0, 0]);
  });

  it.each([{}, { entropyCoef: 0.1 }, { logitSoftcap: 5, entropyCoef: 0.1 }])(
    "leave masked vocabulary and padding out under %p",
    (options) => {
      const logits = logitsOf(2);
      const masked = [0, 1, 31, 32, 500, 899];
      for (const v of masked) for (const row of [0, 1]) rowOf(logits, row)[v] = -inf;
      for (const row of [0, 1]) rowOf(logits, row).fill(Number.NaN, 900);
      const batch = batchOf(logits, { tokenIds: Int32Array.of(4, 5), student: { logits, vocabSize: 900 } });
      const { gradient } = policyLossSync(batch, rlsd(options));
      for (const row of [0, 1]) {
        const dz = rowOf(gradient.logits!, row);
        expect(masked.every((v) => Object.is(dz[v], 0))).toBe(true);
        expect(isAllZero(dz.subarray(900))).toBe(true);
        const sum = [...dz].reduce((a, b) => a + b, 0);
        if (!("logitSoftcap" in options)) expect(Math.abs(sum)).toBeLessThan(1e-6);
      }
    },
  );
});

describe("rows and memory", () => {
  const invalid = (message: RegExp) =>
    expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(message) });

  const wrong: [string, { rows?: Int32Array; tokenIds?: Int32Array }, RegExp][] = [
    ["an id beyond the vocabulary", { tokenIds: Int32Array.of(1, V, 2) }, /tokenIds\[1\] is 1000/],
    ["a negative id", { tokenIds: Int32Array.of(1, 2, -1) }, /tokenIds\[2\] is -1/],
    ["a row out of range", { rows: Int32Array.of(0, 3, 1) }, /student\.rows\[1\] is 3/],
    ["a row named twice", { rows: Int32Array.of(2, 0, 2) }, /rows\[0\] and \[2\] are both 2/],
  ];

  it.each(wrong)("%s is refused by name before anything is written", (_, { rows, tokenIds }, message) => {
    const logits = logitsOf(3);
    const before = logits.data.slice();
    const student = rows === undefined ? { logits } : { logits, rows };
    const batch = batchOf(logits, { student, tokenIds: tokenIds ?? Int32Array.of(1, 2, 3) });
    expect(() => policyLossSync(batch, rlsd(), { inPlace: true })).toThrow(invalid(message));
    expect(logits.data).toEqual(before);
  });

  it("a gradient over memory that is still read is refused", () => {
    const teacher = logitsOf(2);
    const batch = batchOf(logitsOf(2), { teacher: { logits: teacher } });
    expect(() => policyLossSync(batch, rlsd(), { out: { logits: teacher } })).toThrow(invalid(/another view/));
    const block = new Float32Array(3 * V);
    const student = tensor(block.subarray(0, 2 * V), [2, V]);
    const shifted: PolicyOut = { logits: tensor(block.subarray(V), [2, V]) };
    expect(() => policyLossSync(batchOf(student), rlsd(), { out: shifted })).toThrow(invalid(/part of its memory/));
  });

  it("rows that no token names are zeroed in new memory and left alone in given memory", () => {
    const student = { logits: logitsOf(4), rows: Int32Array.of(2, 0) };
    const batch = batchOf(student.logits, { student, tokenIds: Int32Array.of(1, 2) });
    const fresh = policyLossSync(batch, rlsd()).gradient.logits!;
    expect([1, 3].every((row) => isAllZero(rowOf(fresh, row)))).toBe(true);
    const out = { logits: empty([4, V], "f32") };
    out.logits.data.fill(7);
    policyLossSync(batch, rlsd(), { out });
    expect([1, 3].every((row) => rowOf(out.logits, row).every((x) => x === 7))).toBe(true);
    expect([0, 2].every((row) => rowOf(out.logits, row).every((x, v) => x === rowOf(fresh, row)[v]))).toBe(true);
  });

  it("lossScale multiplies the gradients and nothing else", () => {
    const plain = policyLossSync(batchOf(logitsOf(3)), rlsd());
    const scaled = policyLossSync(batchOf(logitsOf(3)), rlsd(), { lossScale: 4 });
    expect(scaled.gradient.logits!.data).toEqual(plain.gradient.logits!.data.map((g) => 4 * g));
    expect(scaled.gradient.logProbs).toEqual(plain.gradient.logProbs.map((g) => 4 * g));
    expect({ ...scaled, gradient: undefined }).toEqual({ ...plain, gradient: undefined });
  });

  it("rows without a gradient are scored, or not even read when asked", () => {
    const logits = logitsOf(4);
    const arrays = { cuSeqlens: Int32Array.of(0, 2, 4), advantages: Float32Array.of(0, 1) };
    const scored = policyLossSync(batchOf(logits, arrays), rlsd());
    expect(scored.stats.skippedRows).toBe(0);
    expect(scored.logProbs.every((logP) => logP < 0)).toBe(true);
    expect(isAllZero(scored.gradient.logits!.data.subarray(0, 2 * V))).toBe(true);
    logits.data.fill(Number.NaN, 0, 2 * V);
    const skipped = policyLossSync(batchOf(logits, arrays), rlsd(), { skipZeroRows: true });
    expect(skipped.stats).toMatchObject({ tokens: 4, skippedRows: 2, nonFiniteRows: 0 });
    expect([...skipped.logProbs.subarray(0, 2)]).toEqual([0, 0]);
    expect(skipped.gradient.logits!.data).toEqual(scored.gradient.logits!.data);
    expect(skipped.loss).toBe(scored.loss);
    // An entropy bonus gives every row a gradient.
    const bonus = () => policyLossSync(batchOf(logits, arrays), rlsd({ entropyCoef: 0.1 }), { skipZeroRows: true });
    expect(bonus).toThrow(expect.objectContaining({ code: "ERR_RLSD_NON_FINITE", count: 2 }));
  });

  it("more than 2^31 elements are addressed", () => {
    const columns = 151_936;
    const rows = Math.ceil(2 ** 31 / columns) + 2;
    let data: Uint16Array;
    try {
      data = new Uint16Array(rows * columns); // zero pages: only the named rows take memory
    } catch (error) {
      console.log(`not run: 2^31 elements, no memory for them: ${(error as Error).message}`);
      return;
    }
    const logits = tensor(data, [rows, columns], "bf16");
    const student = { logits, rows: Int32Array.of(rows - 1, 0) };
    const tokenIds = Int32Array.of(columns - 1, 3);
    const got = policyLossSync(batchOf(logits, { student, tokenIds }), rlsd(), { inPlace: true, lossScale: 2 });
    expect(got.logProbs[0]).toBeCloseTo(-Math.log(columns), 5);
    expect([data[(rows - 1) * columns + columns - 1], data[3]]).toEqual([0x3f80, 0x3f80]);
    expect(data[(rows - 2) * columns]).toBe(0);
  });
});

describe("the bits of the results", () => {
  it.each(dtypes)("do not depend on the number of threads, %s", (dtype) => {
    const run = (threads: number) =>
      policyLossSync(
        batchOf(logitsOf(9, dtype), { teacher: { logits: logitsOf(9, dtype, 6) } }),
        rlsd({ objective: "gspo-token", entropyCoef: 0.01 }),
        { threads },
      );
    const one = run(1);
    for (const threads of [2, 3, 8]) {
      const many = run(threads);
      expect(many.gradient.logits!.data).toEqual(one.gradient.logits!.data);
      expect({ ...many, gradient: undefined }).toEqual({ ...one, gradient: undefined });
    }
  });

  it("agree to float tolerance between instruction sets", () => {
    const script = `
      import { policyLossSync, rlsd, tensor } from "./dist/index.js";
      const f32 = Float32Array.from({ length: 3000 }, (_, i) => 3 * Math.sin(i * i));
      const bf16 = Uint16Array.from(new Uint16Array(f32.buffer).filter((_, i) => i % 2 === 1));
      const results = [tensor(f32, [3, 1000]), tensor(bf16, [3, 1000], "bf16")].map((logits) => policyLossSync(
        { student: { logits }, tokenIds: Int32Array.of(1, 2, 3), cuSeqlens: Int32Array.of(0, 3), advantages: Float32Array.of(1) },
        rlsd({ entropyCoef: 0.1, logitSoftcap: 4 }), { lossScale: 8 }));
      const [a, b] = results;
      console.log(JSON.stringify([a.loss, b.loss, ...a.logProbs, ...b.logProbs, ...a.gradient.logits.data]));`;
    const run = (isa: string) => {
      const args = ["--input-type=module", "-e", script];
      const env = { ...process.env, RLSD_ISA: isa };
      return JSON.parse(execFileSync(process.execPath, args, { cwd: join(__dirname, ".."), env, encoding: "utf8" }));
    };
    const [widest, avx2, portable] = ["avx512", "avx2", "portable"].map(run) as [number[], number[], number[]];
    expect(avx2.length).toBe(3008);
    widest.forEach((x, i) => {
      expect(Math.abs(x - avx2[i]!)).toBeLessThan(2e-6);
      expect(Math.abs(x - portable[i]!)).toBeLessThan(2e-6);
    });
  });
});
