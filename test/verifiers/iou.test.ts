import { bestAssignment, boxIou, spanIou } from "../../lib/verifiers/iou.js";
import { check, reward } from "./support.js";

describe("box-iou", () => {
  test("is intersection over union", () => {
    expect(boxIou([0, 0, 2, 2], [1, 1, 3, 3])).toBeCloseTo(1 / 7, 12);
    expect(boxIou([0, 0, 1, 1], [2, 2, 3, 3])).toBe(0);
    expect(boxIou([0, 0, 0, 0], [0, 0, 0, 0])).toBe(0);
  });

  test("the matching is the best one, not the first", () => {
    const weights = [
      [0.9, 0.8],
      [0.85, 0.1],
    ];
    expect(bestAssignment(weights)).toBeCloseTo(1.65, 12);
    expect(bestAssignment([[0.2], [0.7], [0.4]])).toBeCloseTo(0.7, 12);
  });

  test.each([
    ["[0, 0, 2, 2]", [0, 0, 2, 2], 1],
    ['The box is [[0,0,2,2]], "certainly".', [0, 0, 2, 2], 1],
    [
      "```json\n[[0,0,2,2],[5,5,6,6]]\n```",
      [
        [5, 5, 6, 6],
        [0, 0, 2, 2],
      ],
      1,
    ],
    [
      "[[0,0,2,2]]",
      [
        [0, 0, 2, 2],
        [5, 5, 6, 6],
      ],
      0.5,
    ],
    ["[[0,0,2,2],[9,9,10,10],[7,7,8,8],[5,5,6,6]]", [0, 0, 2, 2], 0.25],
    ["[2, 2, 0, 0]", [0, 0, 2, 2], 0],
    ["nowhere", [0, 0, 2, 2], 0],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("box-iou", completion, { answer })).toBe(expected);
  });

  test("xywh and threshold", async () => {
    const spec = { type: "box-iou", format: "xywh", threshold: 0.5 };
    expect(await reward(spec, "[0, 0, 2, 3]", { answer: [0, 0, 2, 2] })).toBe(1);
    expect(await reward(spec, "[0, 0, 2, 5]", { answer: [0, 0, 2, 2] })).toBe(0);
  });

  test("a right box without area is refused", () => {
    expect(check("box-iou", { answer: [1, 1, 1, 5] })).toThrow(/with an area/);
  });
});

describe("span-iou", () => {
  test("unions of spans, so that covering a part twice gains nothing", () => {
    expect(spanIou([[0, 10]], [[5, 15]])).toBeCloseTo(1 / 3, 12);
    expect(
      spanIou(
        [
          [0, 1],
          [0, 1],
          [0, 1],
        ],
        [[0, 2]],
      ),
    ).toBe(0.5);
    expect(
      spanIou(
        [[0, 1]],
        [
          [0, 1],
          [2, 3],
        ],
      ),
    ).toBe(0.5);
  });

  test.each([
    ["From 2.5 to 7.5 seconds", [2.5, 7.5], 1],
    ["<answer>2-4</answer>", [2, 4], 1],
    ["[[2, 4]]", [2, 4], 1],
    ["the answer is 0 to 100", [0, 10], 0.1],
    ["at 5", [2, 4], 0],
  ])("%j against %j is %d", async (completion, answer, expected) => {
    expect(await reward("span-iou", completion, { answer })).toBeCloseTo(expected, 12);
  });
});
