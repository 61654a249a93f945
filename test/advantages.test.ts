import fc from "fast-check";
import { groupAdvantages, RlsdError, summarizeGroups } from "../lib/index.js";
import { groupAdvantagesReference } from "../lib/reference/advantages.js";
import { runs } from "./support/batches.js";
import { loadVector, relativeError, vectorNames } from "./support/vectors.js";

describe.each(vectorNames)("groupAdvantages against the official code, %s", (name) => {
  const { rewards, groupIds, advantageOptions, expected } = loadVector(name);

  it("equals its group advantages", () => {
    const got = groupAdvantages(rewards, groupIds, advantageOptions);
    expect(relativeError(got, expected.advantages)).toBeLessThan(2e-7);
  });

  it("equals its RLOO advantages with the others' mean and no scale", () => {
    const got = groupAdvantages(rewards, groupIds, { baseline: "leave-one-out", scale: "none" });
    expect(relativeError(got, expected.rlooAdvantages)).toBeLessThan(2e-7);
  });
});

describe("groupAdvantages", () => {
  const reward = fc.oneof(
    fc.constantFrom(0, 1, 0.5, 0.1, null),
    fc.double({ min: -10, max: 10, noNaN: true }).map(Math.fround),
  );
  const groups = fc
    .array(fc.array(reward, { minLength: 2, maxLength: 6 }), { maxLength: 5 })
    .map((lists) => ({ rewards: lists.flat(), groupIds: lists.flatMap((list, id) => list.map(() => id * 7 - 3)) }));
  const options = fc.record({
    baseline: fc.constantFrom("mean", "leave-one-out"),
    scale: fc.constantFrom("group", "batch", "none"),
    eps: fc.constantFrom(0, 1e-6, 1e-4),
    ddof: fc.constantFrom(0, 1),
  } as const);

  it("equals the float64 reference within float32 rounding for every option", () => {
    fc.assert(
      fc.property(groups, options, ({ rewards, groupIds }, o) => {
        const got = groupAdvantages(rewards, groupIds, o);
        const expected = groupAdvantagesReference(rewards, groupIds, o);
        const largest = expected.reduce((most, a) => Math.max(most, Math.abs(a)), 0);
        for (const [i, a] of expected.entries()) {
          expect(Math.abs(got[i]! - a)).toBeLessThanOrEqual(2 ** -24 * Math.abs(a) + 1e-9 * largest);
        }
      }),
      runs(200),
    );
  });

  it("does not depend on the order of the samples", () => {
    fc.assert(
      fc.property(groups, options, fc.nat(), ({ rewards, groupIds }, o, seed) => {
        const order = rewards.map((_, i) => i).sort((i, j) => ((i * 31 + seed) % 17) - ((j * 31 + seed) % 17) || i - j);
        const straight = groupAdvantages(rewards, groupIds, o);
        const moved = groupAdvantages(
          order.map((i) => rewards[i]!),
          order.map((i) => groupIds[i]!),
          o,
        );
        expect(
          relativeError(
            moved,
            order.map((i) => straight[i]!),
            1e-3,
          ),
        ).toBeLessThan(1e-6);
      }),
      runs(100),
    );
  });

  it("divides by the sample deviation plus 1e-6 by default", () => {
    // mean 0.25, ddof 1: std 0.5
    const a = groupAdvantages([1, 0, 0, 0], [5, 5, 5, 5]);
    expect(relativeError(a, [0.75 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001])).toBeLessThan(
      1e-7,
    );
    const population = groupAdvantages([1, 0, 0, 0], [5, 5, 5, 5], { ddof: 0, eps: 0 });
    expect(population[0]).toBeCloseTo(Math.sqrt(3), 6);
  });

  // A mean in float32 of these is not the value itself; its rounding error would be read as a sign.
  it("is exactly 0 for equal rewards that a rounded mean would miss", () => {
    for (let size = 2; size <= 16; size++) {
      for (const value of [0.1, 0.2, 0.3, 0.7, 0.9, 0.95, 1.1]) {
        for (const baseline of ["mean", "leave-one-out"] as const) {
          for (const scale of ["group", "batch", "none"] as const) {
            const rewards = [...new Array<number>(size).fill(value), 0, 1];
            const ids = [...new Array<number>(size).fill(0), 1, 1];
            const a = groupAdvantages(rewards, ids, { baseline, scale });
            expect(a.subarray(0, size).every((x) => Object.is(x, 0))).toBe(true);
            expect(a[size]).toBeLessThan(0);
          }
        }
      }
    }
  });

  // .1 + .7 is one rounding below .8.
  it("is exactly 0 for rewards that differ by rounding alone, and those groups are counted", () => {
    for (const rewards of [
      [0.1 + 0.7, 0.8, 0.8],
      [-0.1 - 0.2, -0.3, -0.3],
      [0.7 + 0.2 + 0.1, 1, 1],
    ]) {
      for (const scale of ["group", "batch", "none"] as const) {
        expect([...groupAdvantages([...rewards, 0, 1], [0, 0, 0, 1, 1], { scale })].slice(0, 3)).toEqual([0, 0, 0]);
        const reference = groupAdvantagesReference([...rewards, 0, 1], [0, 0, 0, 1, 1], { scale });
        expect([...reference].slice(0, 3)).toEqual([0, 0, 0]);
      }
      expect(summarizeGroups(rewards, [0, 0, 0]).zeroVariance).toBe(1);
    }
    expect(groupAdvantages([1, 1 + 1e-14], [0, 0], { scale: "none" })[0]).toBeLessThan(0);
    expect(summarizeGroups([0, 5e-324], [0, 0]).zeroVariance).toBe(0);
  });

  it("leaves unjudged samples out of the statistics and gives them 0", () => {
    const a = groupAdvantages([1, null, 0, null, 1, null], [0, 0, 0, 1, 1, 1]);
    const two = groupAdvantages([1, 0], [0, 0]);
    expect([...a]).toEqual([two[0], 0, two[1], 0, 0, 0]);
    expect(summarizeGroups([1, null, 0, null, 1, null, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2])).toEqual({
      groups: 3,
      zeroVariance: 1,
      unjudged: 1,
    });
  });

  it("refuses a group of one, which has nothing to compare with", () => {
    for (const baseline of ["mean", "leave-one-out"] as const) {
      expect(() => groupAdvantages([1, 0, 1], [0, 0, 9], { baseline })).toThrow(/group 9 has one \(rewards\[2\]\)/);
    }
  });

  it("takes an empty batch", () => {
    expect(groupAdvantages([], [])).toEqual(new Float32Array(0));
  });

  it.each([
    [[1, Number.NaN], [0, 0], {}, "rewards[1]"],
    [[1, Number.POSITIVE_INFINITY], [0, 0], {}, "rewards[1]"],
    [[1, "1"], [0, 0], {}, "rewards[1]"],
    [[1, undefined], [0, 0], {}, "rewards[1]"],
    [[1, 0], [0], {}, "groupIds"],
    [[1, 0], [0, "a"], {}, "groupIds[1]"],
    [[1, 0], [0, Number.NaN], {}, "groupIds[1]"],
    [[1, 0], null, {}, "groupIds"],
    [null, [0], {}, "rewards"],
    [[1, 0], [0, 0], { baseline: "median" }, "baseline"],
    [[1, 0], [0, 0], { scale: "groups" }, "scale"],
    [[1, 0], [0, 0], { eps: -1 }, "eps"],
    [[1, 0], [0, 0], { ddof: 2 }, "ddof"],
    [[1, 0], [0, 0], { epsilon: 1 }, "epsilon"],
    [[1, 0], [0, 0], null, "options"],
    [[1e200, -1e200, 0], [3, 3, 3], {}, "group 3 run from"],
    [[1e308, 1e308, 0], [0, 0, 0], {}, "group 0"],
    [[1e39, 0], [0, 0], { scale: "none" }, "group 0"],
    [[1e200, 0, 1, 0], [0, 0, 1, 1], { scale: "batch" }, "group 0"],
    [[1e-200, 0], [0, 0], { eps: 0 }, "an eps above 0"],
  ])("names what is wrong: %j %j %j", (rewards, ids, options, name) => {
    const call = () => groupAdvantages(rewards as never, ids as never, options as never);
    expect(call).toThrow(RlsdError);
    expect(call).toThrow(new RegExp(name.replace(/[[\]]/g, "\\$&")));
  });
});

describe("lists that are none in all but name", () => {
  const gone = Float32Array.of(1, 0);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  const longer = Object.defineProperty(Float32Array.of(1, 0), "length", { value: 3 });
  const ids = [0, 0, 0];
  it.each<[string, ArrayLike<number>, ArrayLike<number>, RegExp]>([
    ["rewards whose memory was given away", gone, [], /for rewards but received one that cannot be read/],
    ["rewards of a prototype alone", Object.create(Float32Array.prototype), ids, /for rewards but received one that/],
    ["rewards of another length than they say", longer, ids, /it has 2 elements and a length of 3/],
    ["ids of a prototype alone", [1, 0, 1], Object.create(Int32Array.prototype), /3 ids for groupIds but received one/],
  ])("%s are refused", (_, rewards, groupIds, message) => {
    for (const call of [groupAdvantages, summarizeGroups]) {
      expect(() => call(rewards, groupIds)).toThrow(RlsdError);
      expect(() => call(rewards, groupIds)).toThrow(message);
    }
  });
});
