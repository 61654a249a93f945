import { comparisonText } from "../lib/cli/comparison-text.js";
import { compareReport } from "../lib/report/compare-report.js";
import { type ComparedArm, compareArms, groupRuns, type LoggedRun, spread } from "../lib/report/comparison.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";

function run(
  seed: number,
  accuracy: Readonly<Record<number, number>>,
  settings: Record<string, unknown> = {},
): LoggedRun {
  const evals = Object.entries(accuracy).map(
    ([step, value]): MetricsLine => ({ step: Number(step), kind: "eval", accuracy: value, time: { total: 1 } }),
  );
  const train = [10, 30, 20].map(
    (total, i): MetricsLine => ({ step: i + 1, kind: "train", reward: 0.5, time: { total } }),
  );
  const config = { version: "0.1.0", config: { algorithm: "grpo", ...settings, seed, output: `runs/${seed}` } };
  return { name: `seed ${seed}`, link: `x/seed-${seed}/report.html`, config, metrics: [...evals, ...train] };
}

const base: ComparedArm = {
  name: "grpo",
  runs: [run(1, { 0: 0.2, 10: 0.4, 20: 0.6 }), run(2, { 0: 0.2, 10: 0.6, 20: 0.8 })],
};
const credited: ComparedArm = {
  name: "rlsd",
  runs: [run(1, { 0: 0.2, 10: 0.7, 20: 0.9 }), run(2, { 0: 0.2, 10: 0.9, 20: 0.9 })],
};

test("a spread is the mean and the standard deviation over n - 1", () => {
  expect(spread([1, 2, 6])).toEqual({ mean: 3, sd: Math.sqrt(7), n: 3 });
  expect(spread([4])).toEqual({ mean: 4, n: 1 });
});

describe("a comparison", () => {
  test("says where an arm ended, what it was worth on the way, and when it was where the baseline ended", () => {
    const { baseline, arms } = compareArms([base, credited])!;
    const [grpo, rlsd] = arms;
    expect(baseline).toBe("grpo");
    expect(grpo!.curve.map(({ step, mean }) => [step, Number(mean.toFixed(12))])).toEqual([
      [0, 0.2],
      [10, 0.5],
      [20, 0.7],
    ]);
    expect([grpo!.reachesBaseline, grpo!.difference, grpo!.stepMs]).toEqual([20, undefined, 20]);
    expect(rlsd!.reachesBaseline).toBe(10);
    // Trapezoids: (0.2 + 2 * 0.7 + 0.9) / 4 and (0.2 + 2 * 0.9 + 0.9) / 4.
    expect(rlsd!.average.mean).toBeCloseTo((0.625 + 0.725) / 2, 12);
    // Seed by seed: 0.3 and 0.1.
    expect(rlsd!.difference!.mean).toBeCloseTo(0.2, 12);
    expect(rlsd!.difference!.sd).toBeCloseTo(Math.SQRT1_2 * 0.2, 12);
  });

  test("of runs that ended at different steps goes by the end of each, and says so", () => {
    const early = {
      name: "early",
      runs: [run(1, { 0: 0.2, 10: 0.95 }), run(2, { 0: 0.2, 10: 0.3, 20: 0.6, 30: 0.97 }), run(3, { 0: 0.2, 10: 0.9 })],
    };
    const both = compareArms([base, early])!;
    const arm = both.arms[1]!;
    expect(arm.curve.map(({ step }) => step)).toEqual([0, 10]);
    expect(arm.ends).toEqual({ from: 10, to: 30 });
    expect(arm.last.mean).toBeCloseTo((0.95 + 0.97 + 0.9) / 3, 12);
    // Seed by seed: 0.95 - 0.6 and 0.97 - 0.8.
    expect([arm.difference!.n, arm.difference!.mean]).toEqual([2, expect.closeTo(0.26, 12)]);
    // At step 10 the three are at 0.717, which is the baseline's 0.7.
    expect(arm.reachesBaseline).toBe(10);
    const told = "Runs ended at different steps (grpo 20, early 10 to 30)";
    const lines = comparisonText(both).split("\n");
    expect(lines.slice(0, 3)).toEqual([
      "held-out accuracy  step 0       step 10       step 20       last",
      "grpo               20.0% ± 0.0  50.0% ± 14.1  70.0% ± 14.1  70.0% ± 14.1",
      "early              20.0% ± 0.0  71.7% ± 36.2  -             94.0% ± 3.6",
    ]);
    expect(lines.filter((line) => line.startsWith(told))).toHaveLength(1);
    expect(compareReport("x", both, [base, early])).toContain(told);
    // As the baseline it is measured by its ends too, and the others' further steps are columns.
    const turned = compareArms([early, base])!;
    expect(turned.arms[1]!.reachesBaseline).toBeUndefined();
    expect(comparisonText(turned)).toMatch(/step 10 +step 20 +last\n/);
    expect(comparisonText(turned)).toContain("grpo does not reach early's last 94.0% (steps 10 to 30)");
  });

  test("a run that has ended counts as it ended where the others go on", () => {
    const slow = { name: "slow", runs: [run(1, { 0: 0.2, 10: 0.7 }), run(2, { 0: 0.2, 10: 0.3, 20: 0.6, 30: 0.7 })] };
    expect(compareArms([base, slow])!.arms[1]!.reachesBaseline).toBe(30);
  });

  test("pairs only what can be paired", () => {
    const others = { name: "others", runs: [run(8, { 0: 0, 20: 1 })] };
    expect(compareArms([base, others])!.arms[1]!.difference).toBeUndefined();
  });

  test("counts a seed once, however many runs have it, and says where that is", () => {
    const twice = { name: "twice", runs: [run(1, { 0: 0.2, 20: 0.6 }), run(1, { 0: 0.2, 20: 0.8 })] };
    const both = compareArms([base, twice])!;
    expect(both.arms.map(({ runs, seeds, repeatedSeeds }) => [runs, seeds, repeatedSeeds])).toEqual([
      [2, 2, []],
      [2, 1, [1]],
    ]);
    // 0.7 against 0.6: one pair.
    expect(both.arms[1]!.difference).toEqual({ mean: expect.closeTo(0.1, 12), n: 1 });
    const told = "twice has seed 1 more than once: its 2 runs are 1 independent one.";
    expect(comparisonText(both)).toContain(`${told}\nOne seed in an arm: a difference may be chance.`);
    expect(compareReport("x", both, [base, twice])).toContain(told);
  });

  test("is not there where an arm was never evaluated", () => {
    expect(compareArms([base, { name: "blind", runs: [run(1, {})] }])).toBeUndefined();
    expect(compareArms([])).toBeUndefined();
  });

  test("reads in a terminal", () => {
    expect(comparisonText(compareArms([base, credited])!)).toBe(
      [
        "held-out accuracy  step 0       step 10       step 20",
        "grpo               20.0% ± 0.0  50.0% ± 14.1  70.0% ± 14.1",
        "rlsd               20.0% ± 0.0  80.0% ± 14.1  90.0% ± 0.0",
        "rlsd is at grpo's last 70.0% by step 10 of 20",
        "rlsd - grpo at the end: +20.0 ± 14.1 points, 2 seeds in both",
        "± is the standard deviation over the seeds",
      ].join("\n"),
    );
  });

  test("of one seed says that it may be chance; one that falls behind, that it does", () => {
    const text = comparisonText(
      compareArms([
        { name: "a", runs: [run(1, { 0: 0.2, 20: 0.8 })] },
        { name: "b", runs: [run(1, { 0: 0.2, 20: 0.7 })] },
      ])!,
    );
    expect(text).toContain("b does not reach a's last 80.0% (step 20)");
    expect(text).toContain("b - a at the end: −10.0 points, 1 seed in both");
    expect(text).toContain("One seed in an arm: a difference may be chance.");
    expect(text).not.toContain("±");
  });

  test("says of a baseline that learned nothing that there is nothing to reach, not that it was reached at once", () => {
    const flat = (name: string, ...accuracy: number[]) => ({
      name,
      runs: [run(1, Object.fromEntries(accuracy.map((value, i) => [10 * i, value])))],
    });
    const told = (one: ComparedArm, other: ComparedArm) => comparisonText(compareArms([one, other])!).split("\n")[3];
    expect(told(flat("grpo", 0, 0, 0), flat("rlsd", 0, 0, 0))).toBe(
      "rlsd and grpo are at 0.0% at every evaluation: no accuracy was gained",
    );
    const nothing = "grpo ends at 0.0%, no higher than at step 0: there is nothing for rlsd to reach";
    expect(told(flat("grpo", 0, 0.1, 0), flat("rlsd", 0, 0.2, 0.3))).toBe(nothing);
    expect(compareReport("x", compareArms([flat("grpo", 0, 0), flat("rlsd", 0, 1)])!, [])).toContain(nothing);
    // One evaluation says nothing of what was learned.
    expect(told(flat("grpo", 0.5), flat("rlsd", 0.5))).toBe("rlsd is at grpo's last 50.0% by step 0 of 0");
  });

  test("of many evaluations shows the first, the last and some between", () => {
    const many = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [i, i / 100]));
    const [head] = comparisonText(compareArms([{ name: "a", runs: [run(1, many)] }])!).split("\n");
    expect(head!.match(/step \d+/g)).toEqual([
      "step 0",
      "step 17",
      "step 33",
      "step 50",
      "step 67",
      "step 83",
      "step 100",
    ]);
  });

  test("is a page: curves of every arm, what sets them apart, a link to every run", () => {
    const hostile = { ...credited, name: "<script>alert(1)</script>" };
    const text = compareReport("a & b", compareArms([base, hostile])!, [base, hostile]);
    expect(text).toContain("<h1>a &amp; b</h1>");
    expect(text.split("<script>")).toHaveLength(2);
    expect(text.match(/href="x\/seed-\d\/report.html"/g)).toHaveLength(4);
    expect([...text.matchAll(/<figcaption><b>([^<]*)/g)].map((match) => match[1])).toEqual([
      "Held-out accuracy",
      "Reward in training",
    ]);
  });
});

describe("runs that are there already", () => {
  test("are one arm where only the seed and the folder differ", () => {
    const arms = groupRuns([
      run(1, { 0: 0 }, { objective: { creditMix: 1 } }),
      run(1, { 0: 0 }, { algorithm: "rlsd", objective: {} }),
      run(2, { 0: 0 }, { objective: { creditMix: 1 } }),
    ]);
    expect(arms.map(({ name, runs }) => [name, runs.map((one) => one.name)])).toEqual([
      ["algorithm=grpo objective.creditMix=1", ["seed 1", "seed 2"]],
      ["algorithm=rlsd", ["seed 1"]],
    ]);
    expect(
      groupRuns([
        run(1, {}, { algorithm: "grpo", teacher: { kind: "frozen" } }),
        run(1, {}, { algorithm: "opsd", teacher: { kind: "frozen" } }),
        run(1, {}, { algorithm: "opsd", teacher: { kind: "shared" } }),
      ]).map(({ name }) => name),
    ).toEqual(["algorithm=grpo", "algorithm=opsd", "algorithm=opsd teacher.kind=shared"]);
    expect(groupRuns([run(1, {}), run(2, {})]).map(({ name }) => name)).toEqual(["all runs"]);
  });
});
