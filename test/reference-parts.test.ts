import { creditMixAt } from "../lib/index.js";
import { groupAdvantagesReference } from "../lib/reference/advantages.js";
import { samplingProbabilities } from "../lib/reference/sampling.js";
import { creditMixAtReference } from "../lib/reference/schedule.js";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../lib/rounding.js";

describe("groupAdvantages", () => {
  it("divides by the sample deviation of the group", () => {
    const [a, b, c, d] = groupAdvantagesReference([1, 0, 0, 5], [7, 7, 7, 7], { eps: 0 });
    // mean 1.5, squared distances 0.25 + 2.25 + 2.25 + 12.25 = 17, divided by 4 - 1
    const deviation = Math.sqrt(17 / 3);
    [-0.5, -1.5, -1.5, 3.5].forEach((distance, i) => {
      expect([a, b, c, d][i]).toBeCloseTo(distance / deviation, 14);
    });
    expect(groupAdvantagesReference([1, 0, 0, 5], [7, 7, 7, 7], { eps: 0, ddof: 0 })[3]).toBeCloseTo(
      3.5 / Math.sqrt(17 / 4),
      14,
    );
  });

  it("gives exactly 0 to a group of equal rewards that have no exact mean", () => {
    for (const reward of [0.1, 0.3, 0.7, 1.1]) {
      for (let size = 2; size < 17; size++) {
        const rewards = Array<number>(size).fill(reward);
        expect(groupAdvantagesReference(rewards, new Int32Array(size))).toEqual(new Float64Array(size));
        const options = { baseline: "leave-one-out", scale: "none" } as const;
        expect(groupAdvantagesReference(rewards, new Int32Array(size), options)).toEqual(new Float64Array(size));
      }
    }
  });

  it("keeps groups apart, wherever their members stand", () => {
    const mixed = groupAdvantagesReference([1, 10, 0, 30], [0, 1, 0, 1], { scale: "none" });
    expect(Array.from(mixed)).toEqual([0.5, -10, -0.5, 10]);
  });

  it("scales by the batch, or not at all", () => {
    const rewards = [1, 10, 0, 30];
    const deviation = Math.sqrt((9.25 ** 2 + 0.25 ** 2 + 10.25 ** 2 + 19.75 ** 2) / 3);
    const scaled = groupAdvantagesReference(rewards, [0, 1, 0, 1], { scale: "batch", eps: 0.5 });
    expect(scaled[3]).toBeCloseTo(10 / (deviation + 0.5), 14);
  });

  it("compares with the others under leave-one-out", () => {
    const options = { baseline: "leave-one-out", scale: "none" } as const;
    expect(Array.from(groupAdvantagesReference([3, 0, 0], [0, 0, 0], options))).toEqual([3, -1.5, -1.5]);
  });

  it("leaves out what the verifier could not judge", () => {
    const judged = groupAdvantagesReference([1, null, 0, null, 4], [0, 0, 0, 1, 1]);
    const bare = groupAdvantagesReference([1, 0], [0, 0]);
    expect(Array.from(judged)).toEqual([bare[0], 0, bare[1], 0, 0]);
  });
});

describe("creditMixAt", () => {
  it("is its reference, and takes what is left out for 0", () => {
    const none = { warmup: 0, hold: 0, decay: 0, stepBase: 1 };
    for (const given of [{}, { decay: 7 }, { warmup: 3 }, { warmup: 2, hold: 3, decay: 4, stepBase: 0 }]) {
      for (let step = 0; step < 12; step++) {
        const mix = creditMixAt(step, { peak: 0.5, ...given });
        expect(mix).toBe(creditMixAtReference(step, { peak: 0.5, ...none, ...given }));
      }
    }
    expect(creditMixAt(2, { peak: 0.5, warmup: 4 })).toBe(0.25);
  });

  const official = { peak: 0.5, warmup: 0, hold: 0, decay: 60, stepBase: 1 };

  it("decays from the first step on, as the official script", () => {
    expect(creditMixAtReference(1, official)).toBeCloseTo(0.5 * (1 - 1 / 60), 15);
    expect(creditMixAtReference(60, official)).toBe(0);
    expect(creditMixAtReference(61, official)).toBe(0);
  });

  it("gives the peak to the first step when steps count from 0", () => {
    expect(creditMixAtReference(1, { ...official, stepBase: 0 })).toBe(0.5);
    expect(creditMixAtReference(0, { ...official, stepBase: 0 })).toBe(0.5);
  });

  it("rises, stays and falls", () => {
    const schedule = { peak: 0.8, warmup: 4, hold: 2, decay: 8, stepBase: 0 };
    const mixes = Array.from({ length: 16 }, (_, i) => creditMixAtReference(i + 1, schedule));
    const expected = [0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0];
    for (const [i, mix] of mixes.entries()) expect(mix).toBeCloseTo(expected[i], 14);
  });

  it("stays at the peak without a decay", () => {
    expect(creditMixAtReference(1e9, { ...official, decay: 0 })).toBe(0.5);
  });
});

describe.each([
  { name: "bf16", toBits: bf16Bits, toValue: bf16Value, infinity: 0x7f80 },
  { name: "f16", toBits: f16Bits, toValue: f16Value, infinity: 0x7c00 },
])("$name", ({ toBits, toValue, infinity }) => {
  it("gives every number back its own bits", () => {
    const changed: number[] = [];
    for (let bits = 0; bits <= infinity; bits++) {
      if (toBits(toValue(bits)) !== bits) changed.push(bits);
      if (toBits(toValue(bits | 0x8000)) !== (bits | 0x8000)) changed.push(bits | 0x8000);
    }
    expect(changed).toEqual([]);
  });

  it("rounds to the nearest, and the middle of two neighbours to the even one", () => {
    const wrong: number[] = [];
    let middles = 0;
    for (let bits = 0; bits + 1 < infinity; bits++) {
      const low = toValue(bits);
      const step = toValue(bits + 1) - low;
      const middle = low + step / 2;
      if (Math.fround(middle) !== middle) continue;
      middles++;
      const even = bits + (bits & 1);
      if (toBits(middle) !== even || toBits(-middle) !== (even | 0x8000)) wrong.push(bits);
      if (toBits(middle - step / 8) !== bits || toBits(middle + step / 8) !== bits + 1) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
    expect(middles).toBeGreaterThan(30000);
  });

  it("keeps NaN and infinities, and overflows to infinity", () => {
    expect(toValue(toBits(Number.NaN))).toBeNaN();
    expect(toBits(Number.POSITIVE_INFINITY)).toBe(infinity);
    expect(toBits(-3.4028234663852886e38)).toBe(infinity | 0x8000);
    expect(toValue(infinity + 1)).toBeNaN();
  });
});

describe("samplingProbabilities", () => {
  const open = { temperature: 1, topK: 0, topP: 1, minP: 0 };
  const logits = [0.5, 0.25, 0.125, 0.125].map(Math.log);
  const near = (got: Float64Array, expected: number[]): void => {
    expect(got.length).toBe(expected.length);
    for (const [i, p] of expected.entries()) expect(got[i]).toBeCloseTo(p, 14);
  };

  it("is the softmax where nothing is cut", () => {
    near(samplingProbabilities(logits, open), [0.5, 0.25, 0.125, 0.125]);
    near(samplingProbabilities(logits, { ...open, temperature: 0.5 }), [16 / 22, 4 / 22, 1 / 22, 1 / 22]);
  });

  it("cuts by count, by mass and by the largest", () => {
    near(samplingProbabilities(logits, { ...open, topK: 2 }), [2 / 3, 1 / 3, 0, 0]);
    near(samplingProbabilities(logits, { ...open, topP: 0.7 }), [2 / 3, 1 / 3, 0, 0]);
    near(samplingProbabilities(logits, { ...open, topP: 0 }), [1, 0, 0, 0]);
    near(samplingProbabilities([0, 0], { ...open, topP: 0.5 }), [1, 0]);
    near(samplingProbabilities(logits, { ...open, minP: 0.4 }), [2 / 3, 1 / 3, 0, 0]);
  });

  it("renormalises between the cuts", () => {
    // top-k 2 leaves 2/3 and 1/3: a mass of 0.6 is the first alone, of the whole it would be two.
    near(samplingProbabilities(logits, { ...open, topK: 2, topP: 0.6 }), [1, 0, 0, 0]);
  });

  it("keeps the smaller id among equals", () => {
    near(samplingProbabilities(logits, { ...open, topK: 3 }), [4 / 7, 2 / 7, 1 / 7, 0]);
    near(samplingProbabilities([1, 1, 1], { ...open, temperature: 0 }), [1, 0, 0]);
  });

  it("never gives a masked or padding token any mass", () => {
    near(samplingProbabilities([Number.NEGATIVE_INFINITY, 3, 9], open, 2), [0, 1, 0]);
  });
});
