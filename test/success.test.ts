import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { evaluateModel } from "../lib/trainer/eval-run.js";
import { createReward } from "../lib/trainer/prepare.js";
import type { RewardSetting } from "../lib/trainer/settings.js";
import { rightBy, succeededBy, successRule } from "../lib/trainer/success.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const tags = { type: "tags", tags: ["answer"] };
const length = { type: "length", max: 100, buffer: 10 };
const words = ({ completion }: Sample) => completion.includes("so") && 1;

const configOf = (reward: RewardSetting, o: TrainConfig = {}) =>
  resolveConfig({ model: "m", data: { train: ["d.jsonl"] }, ...o, reward });

/** Whether completions are right by the default, of rows whose answer is 4. */
async function right(reward: RewardSetting, ...completions: string[]): Promise<boolean[]> {
  const verifier = createReward(reward);
  const isRight = rightBy(configOf(reward));
  const judged = completions.map(async (completion) => {
    const sample = { id: "s", prompt: "", completion, finish: "stop" as const, row: { answer: "4" } };
    const { detail = {}, ...verdict } = await verifier.verify(sample, new AbortController().signal);
    return isRight({ ...verdict, detail });
  });
  return Promise.all(judged);
}

const BOTH = "<answer>4</answer>";
const FORM = "<answer>5</answer>";
const ANSWER = "the answer is 4";

describe("without a threshold a completion is right", () => {
  const rewards: [string, RewardSetting, string[]][] = [
    ["where the one verifier gives 1", "numeric", []],
    [
      "where the answer is, its weight being the largest",
      [{ verifier: "numeric", weight: 2 }, { verifier: tags }],
      ["numeric"],
    ],
    [
      "where the answer is, all weights making 1",
      [
        { verifier: "numeric", weight: 0.7 },
        { verifier: tags, weight: 0.2 },
        { verifier: length, weight: 0.1 },
      ],
      ["numeric"],
    ],
    [
      "where the answer is, whatever its form weighs",
      [
        { verifier: "numeric", weight: 0.5 },
        { verifier: tags, weight: 3 },
      ],
      ["numeric"],
    ],
    [
      "where the answer is, by its name, a fine being on it",
      [
        { verifier: "numeric", name: "truth" },
        { verifier: tags, weight: -0.5 },
      ],
      ["truth"],
    ],
    [
      "inside sums and gates",
      {
        type: "sum",
        parts: [
          { verifier: tags },
          {
            verifier: { type: "sum", parts: [{ verifier: "numeric", weight: 5 }, { verifier: length }] },
            name: "inner",
          },
        ],
      },
      ["inner.numeric"],
    ],
  ];
  test.each(rewards)("%s", async (_, reward, parts) => {
    expect(await right(reward, BOTH, ANSWER, FORM, "")).toEqual([true, true, false, false]);
    expect(successRule(reward, null)).toMatchObject({ threshold: null, parts });
  });

  test("by the case that its row names, alone and in a sum", async () => {
    const other = {
      type: "sum",
      parts: [
        { verifier: "numeric", weight: 0.5 },
        { verifier: tags, weight: 0.1 },
      ],
    };
    const bySwitch = { type: "switch", field: "answer", cases: { 4: other, 5: "text" }, otherwise: tags };
    expect(await right(bySwitch, BOTH, ANSWER, FORM)).toEqual([true, true, false]);
    expect(successRule(bySwitch, null).parts).toEqual(["(4.numeric or 5 or otherwise)"]);
    const inSum = [{ verifier: bySwitch, weight: 2 }, { verifier: "numeric" }];
    expect(await right(inSum, BOTH, ANSWER, FORM)).toEqual([true, true, false]);
    expect(successRule(inSum, null)).toMatchObject({ parts: ["switch.(4.numeric or 5 or otherwise)"] });
    const without = { reward: 0, detail: {} };
    expect(rightBy(configOf(bySwitch))(without)).toBe(false);
  });

  test("behind a gate, where the gate lets it through", async () => {
    const gated = {
      type: "gate",
      gate: tags,
      verifier: { type: "sum", parts: [{ verifier: "numeric" }, { verifier: length, weight: 0.5 }] },
    };
    expect(await right(gated, BOTH, ANSWER, FORM)).toEqual([true, false, false]);
    expect(successRule(gated, null).parts).toEqual(["verifier.numeric"]);
  });

  test.each<[string, RewardSetting, RewardSetting]>([
    ["both judge the answer", "numeric", "math"],
    ["both are of form", tags, length],
  ])("behind a gate, where %s", (_, gate, verifier) => {
    expect(successRule({ type: "gate", gate, verifier }, null).parts).toEqual(["verifier"]);
  });

  test("where a gate is satisfied that has form alone behind it", async () => {
    const gated = { type: "gate", gate: "numeric", verifier: { type: "length", max: 3, buffer: 2 } };
    expect(await right(gated, BOTH, ANSWER, FORM)).toEqual([true, true, false]);
    expect(
      successRule(
        [
          { verifier: gated, weight: 2 },
          { verifier: "numeric", name: "n" },
        ],
        null,
      ).parts,
    ).toEqual(["gate.gate"]);
  });

  test("where all parts are that weigh the same, and of form alone all of them", async () => {
    const two = [{ verifier: "numeric" }, { verifier: words, name: "words" }, { verifier: tags, weight: 9 }];
    expect(await right(two, BOTH, "so 4", "so 5")).toEqual([false, true, false]);
    expect(successRule(two, null)).toEqual({ threshold: null, parts: ["numeric", "words"], rest: 9 });
    const form = [
      { verifier: tags, weight: 0.4 },
      { verifier: length, weight: 0.6 },
    ];
    expect(await right(form, FORM, ANSWER)).toEqual([true, false]);
    expect(await right([{ verifier: "numeric", weight: 0 }], ANSWER)).toEqual([false]);
  });

  test("though it is fined for its length, but it is then no success to show", () => {
    const config = configOf([{ verifier: "numeric", weight: 2 }, { verifier: tags }]);
    const verdict = { reward: 1.5, unfined: 2, detail: { numeric: { reward: 1 }, tags: { reward: 0 } } };
    expect([rightBy(config)(verdict), succeededBy(config)(verdict)]).toEqual([true, false]);
    const { unfined: _, ...whole } = verdict;
    expect(succeededBy(config)({ ...whole, reward: 2 })).toBe(true);
    expect(succeededBy(config)({ reward: 1, detail: { numeric: { reward: 0 }, tags: { reward: 1 } } })).toBe(false);
    expect(rightBy(config)({ ...whole, reward: null })).toBe(false);
    const privileged = { source: "sibling", successThreshold: 0.5 } as const;
    const low = configOf("numeric", { privileged, eval: { successThreshold: 0.9 } });
    const fined = { reward: 0.6, unfined: 1, detail: {} };
    expect([rightBy(low)(fined), succeededBy(low)(fined), rightBy(low)({ reward: 0.6, detail: {} })]).toEqual([
      true,
      true,
      false,
    ]);
  });
});

test("a threshold is of the whole reward, and a plan says where it lets wrong answers through", async () => {
  const reward = [{ verifier: "numeric", weight: 2 }, { verifier: tags }];
  const isRight = rightBy(configOf(reward, { eval: { successThreshold: 1 } }));
  expect(isRight({ reward: 1, detail: { numeric: { reward: 0 }, tags: { reward: 1 } } })).toBe(true);
  const { folder, settings } = tinyTask();
  writeFileSync(join(folder, "rows.jsonl"), '{"question":"say a","answer":4}');
  const told = async (given: RewardSetting, successThreshold: number | null) => {
    const o = { ...settings, data: { train: [join(folder, "rows.jsonl")] }, reward: given, eval: { successThreshold } };
    return /^right .*(\n {11}.*)?/m.exec(dryRunText(await dryRun(o, { loadPolicy: TinyPolicy.load })))?.[0];
  };
  expect(await told("numeric", null)).toBeUndefined();
  expect(await told("numeric", 0.5)).toBe("right      rewards of at least 0.5");
  expect(await told(reward, null)).toBe("right      where numeric gives 1, whatever the other parts do");
  expect(await told(reward, 2)).toBe("right      rewards of at least 2");
  expect(await told(reward, 1)).toBe(
    "right      rewards of at least 1\n           without numeric there are up to 1: what is wrong counts as right (eval.successThreshold)",
  );
});

test("an evaluation by another reward than the run's goes by that one's parts", async () => {
  const { folder, settings } = tinyTask();
  const first = ({ completion, row }: Sample) => (completion[0] === row.answer ? 1 : 0);
  const accuracies = [];
  for (const [i, reward] of [
    first,
    [
      { verifier: first, weight: 0.3 },
      { verifier: length, weight: 0.1 },
    ],
  ].entries()) {
    const { metrics } = await evaluateModel(
      join(folder, "model"),
      [join(folder, "eval.jsonl")],
      join(folder, `eval-${i}`),
      { rollout: { maxTokens: 3 }, reward },
      { loadPolicy: TinyPolicy.load },
    );
    accuracies.push([metrics.accuracy, metrics.reward! > 0]);
  }
  expect(accuracies[1]![0]).toBe(accuracies[0]![0]);
  expect(accuracies[1]![1]).toBe(true);
  expect(settings.steps).toBe(6);
});
