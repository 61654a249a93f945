import { type LearningRateSchedule, learningRateAt } from "../lib/index.js";
import { encodeStep } from "../lib/policy/step-options.js";

const at = (steps: number[], o: object): number[] =>
  steps.map((step) => Number(learningRateAt(step, { peak: 1, total: 10, ...o }).toFixed(6)));

test("rises linearly through the warm-up, then stays", () => {
  expect(at([1, 2, 4, 5, 10, 99], { warmup: 4 })).toEqual([0.25, 0.5, 1, 1, 1, 1]);
});

test("linear decay reaches the floor at the last step and stays there", () => {
  expect(at([2, 6, 10, 11], { warmup: 2, decay: "linear" })).toEqual([1, 0.5, 0, 0]);
  expect(at([6, 10], { warmup: 2, decay: "linear", floor: 0.2 })).toEqual([0.6, 0.2]);
});

test("cosine decay is half way down in the middle", () => {
  expect(at([2, 4, 6, 10, 20], { warmup: 2, decay: "cosine" })).toEqual([1, 0.853553, 0.5, 0, 0]);
});

test("no warm-up starts to fall at once; a warm-up as long as the run never falls", () => {
  expect(at([1, 10], { decay: "linear" })).toEqual([0.9, 0]);
  expect(at([10], { warmup: 10, decay: "cosine" })).toEqual([1]);
});

test.each([
  [0, {}],
  [1, { total: 0 }],
  [1, { floor: 2 }],
  [1, { warmup: -1 }],
  [1, { decay: "exponential" }],
  [1, { warmUp: 3 }],
])("step %j with %j is refused", (step, o) => {
  expect(() => learningRateAt(step, { peak: 1, total: 10, ...o } as LearningRateSchedule)).toThrow(
    expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
  );
});

test("a step divides by no eps that is 0 in float32", () => {
  for (const eps of [0, 1e-60]) {
    expect(() => encodeStep({ learningRate: 1, eps })).toThrow(/at least 1\.175\d+e-38 for eps but received/);
  }
  expect(Math.fround(encodeStep({ learningRate: 1, eps: 2 ** -126 })[4]!)).toBe(2 ** -126);
});
