import fc from "fast-check";
import { type CreditSchedule, creditMixAt, RlsdError } from "../lib/index.js";
import { creditMixAtReference } from "../lib/reference/schedule.js";
import { runs } from "./support/batches.js";

const schedule: CreditSchedule = { peak: 0.5, warmup: 0, hold: 0, decay: 60 };

describe("creditMixAt", () => {
  it("is the official script's: .4917 at step 1 and 0 at step 60", () => {
    expect(creditMixAt(1, schedule)).toBeCloseTo(0.5 * (1 - 1 / 60), 15);
    expect(creditMixAt(59, schedule)).toBeCloseTo(0.5 / 60, 15);
    expect(creditMixAt(60, schedule)).toBe(0);
    expect(creditMixAt(1000, schedule)).toBe(0);
  });

  it("counts from 0 as ms-swift does when stepBase is 0", () => {
    expect(creditMixAt(1, { ...schedule, stepBase: 0 })).toBe(0.5);
    expect(creditMixAt(61, { ...schedule, stepBase: 0 })).toBe(0);
    expect(creditMixAt(1, { peak: 1, warmup: 4, hold: 0, decay: 0, stepBase: 0 })).toBe(0);
  });

  it("rises, holds and falls", () => {
    const s = { peak: 0.8, warmup: 4, hold: 3, decay: 2 };
    const steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((step) => creditMixAt(step, s));
    expect(steps).toEqual([0, 0.2, 0.4, (0.8 * 3) / 4, 0.8, 0.8, 0.8, 0.8, 0.4, 0, 0]);
  });

  it("holds for ever when decay is 0", () => {
    expect(creditMixAt(1e9, { peak: 0.5, warmup: 10, hold: 0, decay: 0 })).toBe(0.5);
  });

  it("equals the reference and stays in [0, peak]", () => {
    const whole = fc.nat({ max: 40 });
    const schedules = fc.record({
      peak: fc.double({ min: 0, max: 1, noNaN: true }),
      warmup: whole,
      hold: whole,
      decay: whole,
      stepBase: fc.constantFrom(0, 1),
    });
    fc.assert(
      fc.property(fc.nat({ max: 130 }), schedules, (step, s) => {
        const got = creditMixAt(step, s);
        expect(got).toBe(creditMixAtReference(step, s));
        expect(got >= 0 && got <= s.peak).toBe(true);
      }),
      runs(500),
    );
  });

  it.each([
    [-1, schedule, "step"],
    [Number.NaN, schedule, "step"],
    ["3", schedule, "step"],
    [1, { ...schedule, peak: 1.1 }, "peak"],
    [1, { ...schedule, peak: -0.1 }, "peak"],
    [1, { ...schedule, warmup: -1 }, "warmup"],
    [1, { ...schedule, hold: Number.POSITIVE_INFINITY }, "hold"],
    [1, { ...schedule, decay: -1 }, "decay"],
    [1, { ...schedule, stepBase: "1" }, "stepBase"],
    [1, { ...schedule, warmUp: 1 }, "Did you mean warmup"],
    [1, undefined, "schedule"],
  ])("names what is wrong: %p %j", (step, s, name) => {
    const call = () => creditMixAt(step as never, s as never);
    expect(call).toThrow(RlsdError);
    expect(call).toThrow(new RegExp(name));
  });
});
