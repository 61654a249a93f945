import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createWatch } from "../lib/cli/look-at.js";
import { createCreditReport } from "../lib/report/credit-report.js";
import { createDigest, digestRun, POSITIONS } from "../lib/report/digest.js";
import { factsOf, runReport } from "../lib/report/run-report.js";
import { warningsOf } from "../lib/report/warnings.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import type { RunConfig, SampleLine } from "../lib/trainer/run-folder.js";

const config: RunConfig = {
  version: "0.1.0",
  config: { algorithm: "rlsd", model: "./model", steps: 4, reward: "numeric", objective: { evidenceClip: 0.5 } },
};

function sample(o: Partial<SampleLine> & { weights?: (number | null)[] } = {}): SampleLine {
  const { weights = [1, 1.5, 0.5], ...rest } = o;
  const n = weights.length;
  return {
    step: 1,
    id: "row#0",
    group: 0,
    prompt: "question",
    privileged: "answer",
    completion: "abc",
    tokenIds: weights.map((_, i) => i),
    tokenText: weights.map((_, i) => "abc"[i % 3]!),
    logProbs: new Array(n).fill(-1),
    teacherLogProbs: new Array(n).fill(-0.5),
    evidenceWeights: weights,
    tokenAdvantages: weights.map((w) => w ?? 1),
    reward: 1,
    advantage: 1,
    detail: {},
    ...rest,
  };
}

const line = (step: number, numbers: Record<string, number> = {}): MetricsLine => ({
  step,
  kind: "train",
  tokens: 10,
  ...numbers,
  time: { total: 100, update: 60 },
});

async function* each<T>(things: readonly T[]): AsyncGenerator<T> {
  yield* things;
}

const digestOf = (metrics: readonly MetricsLine[], samples: readonly SampleLine[], steps = 8) =>
  digestRun({ name: "run", config, metrics: each(metrics), samples: each(samples) }, { steps });

describe("the digest of samples", () => {
  const digest = (samples: readonly SampleLine[], steps: number) => {
    const all = createDigest(steps);
    for (const one of samples) all.add(one);
    return all.end();
  };

  test.each([1, 2, 3, 8, 50, 999, 1000])("of %d steps it keeps eight at most, the first and the last, evenly", (n) => {
    const told = digest(
      Array.from({ length: n }, (_, i) => sample({ step: i + 1 })),
      8,
    );
    const steps = told.samples.map((s) => s.step);
    expect(steps).toHaveLength(Math.min(n, 8));
    expect([steps[0], steps.at(-1), told.sampleCount]).toEqual([1, n, n]);
    const gaps = steps.slice(1).map((step, i) => step - steps[i]!);
    if (n >= 50) expect(Math.max(...gaps) / Math.min(...gaps)).toBeLessThanOrEqual(2);
  });

  test("of a step it keeps the group with most credit, of that at most four, both signs among them", () => {
    const quiet = Array.from({ length: 8 }, (_, i) => sample({ id: `quiet#${i}`, weights: [1.01] }));
    const lively = Array.from({ length: 8 }, (_, i) =>
      sample({ id: `lively#${i}`, group: 1, weights: [1 + i / 10], advantage: i === 1 ? -1 : 1 }),
    );
    expect(digest([...quiet, ...lively], 8).samples.map((s) => s.id)).toEqual([
      "lively#1",
      "lively#5",
      "lively#6",
      "lively#7",
    ]);
  });

  test("steps at which no teacher spoke are shown only where it never did", () => {
    const silent = sample({ step: 1, teacherLogProbs: [], evidenceWeights: [], id: "silent" });
    expect(digest([silent, sample({ step: 2, id: "told" })], 8).samples.map((s) => s.id)).toEqual(["told"]);
    const alone = digest([silent], 8);
    expect([alone.samples.map((s) => s.id), alone.creditedCount]).toEqual([["silent"], 0]);
  });

  test("credit is added up by token, sign and direction; masked and odd weights are no credit", () => {
    const told = digest(
      [
        sample({ weights: [1.5, 1.001, 0.75] }),
        sample({ weights: [1.25, null, 1], tokenAdvantages: [1, 1, 0] }),
        sample({ weights: [1.5, 1, 1], advantage: -1, tokenAdvantages: [-1.5, 0, -1] }),
      ],
      8,
    );
    expect(told.tokens).toEqual([
      { text: "a", sign: 1, direction: 1, count: 2, excess: 0.75 },
      { text: "c", sign: 1, direction: -1, count: 1, excess: -0.25 },
      { text: "a", sign: -1, direction: 1, count: 1, excess: 0.5 },
    ]);
    expect(told.profile.positive[0]).toBeCloseTo((0.5 + 0.25) / 2, 12);
    expect(told.profile.positive).toHaveLength(POSITIONS);
  });
});

test("a reward of several parts is told in words, and of a completion what each of them said", async () => {
  const parts = [{ verifier: "numeric", weight: 2 }, { verifier: { type: "gate", gate: "math", verifier: "tags" } }];
  const detail = {
    numeric: { reward: 1, detail: { extracted: 5, expected: "<5>" } },
    gate: { reward: null, detail: { math: { reward: 0 } } },
    list: [1],
  };
  const digest = await digestOf([line(1)], [sample({ detail })]);
  const page = (reward: unknown) =>
    runReport({ ...digest, config: { ...config, config: { ...config.config, reward } } });
  expect(page(parts)).toContain("judged by <code>2 numeric + tags behind math</code>");
  expect(page({ type: "sum", parts: [{ verifier: "(function)", name: "mine" }] })).toContain("<code>mine</code>");
  expect(page({ type: "math", decimals: 3 })).toContain("<code>math</code>");
  expect(page("(verifier)")).toContain("<code>(verifier)</code>");
  expect(page({ type: "switch", field: "kind", cases: { a: "math" }, otherwise: "text" })).toContain(
    "<code>by kind: a math, otherwise text</code>",
  );
  expect(page("numeric")).toContain("numeric 1 (extracted 5, expected &lt;5&gt;), gate none (math 0)");
});

test("what the verifier said most is a curve, 0 where it did not", async () => {
  const said = [{ "reason/no-answer": 1 }, { "reason/cut": 0.25, "reason/layout": 0.5 }, {}].map((one, i) =>
    line(i + 1, one),
  );
  const text = runReport(await digestOf(said, []));
  const [, found] = /What the verifier said(.*?)<\/svg>/s.exec(text)!;
  expect(["no-answer", "layout", "cut"].map((name) => found!.indexOf(name)).every((at) => at >= 0)).toBe(true);
  expect(found!.indexOf("no-answer")).toBeLessThan(found!.indexOf("layout"));
  const lines = [...found!.matchAll(/<polyline[^>]* points="([^"]*)"/g)].map(
    ([, points]) => points!.trim().split(/\s+/).length,
  );
  expect(lines).toEqual([3, 3, 3]);
  expect(runReport(await digestOf([line(1), line(2)], []))).not.toContain("What the verifier said");
});

describe("warnings", () => {
  const of = (...metrics: MetricsLine[]) => warningsOf({ metrics }).map((warning) => warning.metric);
  const healthy = {
    entropy: 1,
    deltaMeanPositive: 0.1,
    deltaMeanNegative: -0.1,
    zeroVarianceFraction: 0.2,
    unjudged: 0,
  };

  test("equal rewards are no loss where the teacher is imitated", () => {
    expect(of(line(1, { ...healthy, zeroVarianceFraction: 0.9, divergenceMean: 0.1 }))).toEqual([]);
  });

  test("accuracy that was had and lost is told, where it is more than chance", () => {
    const evaluated = (step: number, accuracy: number): MetricsLine => ({
      ...line(step, { accuracy, accuracyLow: accuracy - 0.05, accuracyHigh: accuracy + 0.05 }),
      kind: "eval",
    });
    const run = (...accuracies: number[]) =>
      warningsOf({ metrics: [line(1, healthy), ...accuracies.map((accuracy, i) => evaluated(10 * i, accuracy))] });
    expect(run(0.3, 0.9, 0.85)).toEqual([]);
    expect(run(0.3)).toEqual([]);
    expect(run(0.3, 0.9, 0.15)).toEqual([
      { metric: "accuracy", message: expect.stringMatching(/was 90.0% at step 10 and is 15.0% now/) },
    ]);
  });

  test("a healthy run has none; so has one that has not begun", () => {
    expect(of(line(1, healthy), line(2, healthy), line(3, healthy), line(4, healthy))).toEqual([]);
    expect(of()).toEqual([]);
  });

  test.each([
    ["unjudged", { unjudged: 1 }],
    ["skippedUpdates", { skippedUpdates: 1 }],
    ["nonFiniteRows", { nonFiniteRows: 2 }],
    ["nanTeacherRows", { nanTeacherRows: 2 }],
    ["truncatedPrivilege", { truncatedPrivilege: 1 }],
    ["zeroVarianceFraction", { zeroVarianceFraction: 0.6 }],
    ["truncatedFraction", { truncatedFraction: 0.3 }],
    ["noPrivilegeFraction", { noPrivilegeFraction: 0.5 }],
    ["leakRate", { leakRate: 0.02 }],
    ["ratioClippedHigh", { ratioClippedHigh: 0.4 }],
    ["evidenceClippedHigh", { evidenceClippedHigh: 0.6 }],
    ["entropy", { entropy: 0.05 }],
    ["deltaMeanPositive", { deltaMeanPositive: -0.2 }],
  ])("%s is told", (metric, wrong) => {
    expect(of(line(1, healthy), line(2, healthy), line(3, healthy), line(4, { ...healthy, ...wrong }))).toEqual([
      metric,
    ]);
  });

  const told = (...metrics: MetricsLine[]) => warningsOf({ metrics }).map(({ message }) => message);
  const four = (last: Record<string, number>) => [1, 2, 3].map((n) => line(n, healthy)).concat(line(4, last));

  test.each([
    [
      "all wrong",
      { accuracy: 0, "reason/no-answer": 0.9, "reason/cut": 0.1 },
      /0% .* right, .* says no-answer 90%, cut 10%\./,
    ],
    ["all right", { accuracy: 1 }, /100% of the completions are right, the data is too easy/],
    ["some of each", { accuracy: 0.5 }, /always answered alike.*groups\.zeroVariance=resample/],
  ])("equal rewards say on which side they are: %s", (_, more, message) => {
    expect(told(...four({ ...healthy, zeroVarianceFraction: 1, ...more }))).toEqual([expect.stringMatching(message)]);
  });

  test("completions without a verdict are told with what the verifier said, those of evaluations too", () => {
    const evaluated: MetricsLine = { ...line(4, { unjudged: 2, "unjudged/timeout": 2 }), kind: "eval" };
    const run = [...four({ ...healthy, unjudged: 3, "unjudged/http": 3 }), evaluated];
    expect(told(...run)).toEqual([expect.stringMatching(/^5 completions had no verdict \(http 3, timeout 2\)/)]);
  });

  test("a reward that has fallen is told, and that the teacher led there", () => {
    const run = (rewards: number[], ...divergences: number[]) =>
      told(
        ...rewards.map((reward, i) => {
          const distilled = divergences.length === 0 ? {} : { divergenceMean: divergences[i]! };
          return line(i + 1, { ...healthy, reward, ...distilled });
        }),
      );
    expect(run([0.4, 0.3, 0.2, 0.1])).toEqual([
      expect.stringMatching(/^The mean reward fell from 0\.40 to 0\.10: updates/),
    ]);
    expect(run([0.4, 0.3, 0.2, 0.1], 0.2, 0.2, 0.1, 0.1)).toEqual([expect.stringMatching(/nearer to its teacher/)]);
    expect(run([0.4, 0.3, 0.2, 0.1], 0.1, 0.2, 0.3, 0.4)).toEqual([expect.stringMatching(/updates do harm/)]);
    expect(run([0.4, 0.3, 0.3, 0.25])).toEqual([]);
    expect(run([0.05, 0, 0, 0])).toEqual([]);
  });

  test("a part of the reward that no completion earns is told, where others are earned", () => {
    const parts = (reward: number, tags: number) =>
      four({ ...healthy, reward, "reward/math": reward, "reward/tags": tags });
    expect(told(...parts(0.5, 0))).toEqual([expect.stringMatching(/^tags was 0 for every completion/)]);
    expect(told(...parts(0.5, 0.1))).toEqual([]);
    expect(told(...parts(0, 0))).toEqual([]);
  });

  test("a teacher that says what the student says is told, one whose few tokens matter is not", () => {
    const silent = {
      ...healthy,
      evidenceWeightP05: 0.9999,
      evidenceWeightP95: 1.0001,
      evidenceClippedLow: 0,
      evidenceClippedHigh: 0,
      deltaMeanPositive: 0.0001,
      deltaMeanNegative: -0.0001,
    };
    expect(told(...four(silent))).toEqual([expect.stringMatching(/^Nearly all weights .* credit changes nothing/)]);
    expect(told(...four({ ...silent, deltaMeanNegative: -0.01 }))).toEqual([]);
    expect(told(...four({ ...silent, evidenceClippedHigh: 0.01 }))).toEqual([]);
  });

  test("a teacher that its prompt puts off is told by how much", () => {
    const deltas = (right: number, wrong: number) =>
      told(...four({ ...healthy, deltaMeanPositive: right, deltaMeanNegative: wrong }));
    expect(deltas(-1.12, -1.24)).toEqual([expect.stringMatching(/loses 1\.12 nats in accepted .* 1\.24 in rejected/)]);
    expect(deltas(-0.3, -0.6)).toEqual([]);
    expect(deltas(-0.1, -0.11)).toEqual([]);
  });

  test("completions that shrink and an entropy that rises are told", () => {
    const run = (name: string, ...values: number[]) =>
      of(...values.map((value, i) => line(i + 1, { ...healthy, reward: 0.5, [name]: value })));
    expect(run("length", 100, 80, 60, 40)).toEqual(["length"]);
    expect(run("length", 100, 80, 60, 55)).toEqual([]);
    expect(run("entropy", 0.5, 1, 1.5, 2)).toEqual(["entropy"]);
    expect(run("entropy", 0.1, 0.2, 0.3, 0.9)).toEqual([]);
  });

  test("while a run goes on each is told once, after 5 steps and then after twice as many", () => {
    const watch = createWatch();
    const flat = (n: number, more = {}) => watch.see(line(n, { ...healthy, zeroVarianceFraction: 1, ...more }));
    const seen = Array.from({ length: 20 }, (_, i) => flat(i + 1, i > 5 ? { skippedUpdates: 1 } : {}));
    expect(seen.map((found) => found.map(({ metric }) => metric).join())).toEqual(
      [5, 10].reduce<string[]>(
        (all, step) => all.with(step - 1, step === 5 ? "zeroVarianceFraction" : "skippedUpdates"),
        new Array<string>(20).fill(""),
      ),
    );
  });

  test("a run that was never better than what it began with is told", () => {
    const evaluated = (step: number, accuracy: number): MetricsLine => ({ ...line(step, { accuracy }), kind: "eval" });
    const worse = [evaluated(0, 0.5), line(1, healthy), evaluated(1, 0.4), line(2, healthy), evaluated(2, 0.5)];
    expect(of(...worse)).toEqual(["accuracy"]);
    expect(of(...worse, evaluated(3, 0.6))).toEqual([]);
    expect(of(...worse.slice(1))).toEqual([]);
    expect(of(...worse.slice(0, 2))).toEqual([]);
  });

  test("a share counts by the last quarter alone", () => {
    const early = { ...healthy, zeroVarianceFraction: 1 };
    expect(of(line(1, early), line(2, early), line(3, early), line(4, healthy))).toEqual([]);
  });
});

describe("the report of a run", () => {
  const evaluation = (step: number, accuracy: number): MetricsLine => ({
    step,
    kind: "eval",
    accuracy,
    accuracyLow: accuracy - 0.1,
    accuracyHigh: accuracy + 0.1,
    time: { total: 50 },
  });
  const metrics = [evaluation(0, 0.2), line(1, { reward: 0.5 }), line(2, { reward: 0.7 }), evaluation(2, 0.8)];

  test("says what was reached, in how many tokens and how long", async () => {
    expect(factsOf(await digestOf(metrics, []))).toEqual({
      name: "run",
      algorithm: "rlsd",
      model: "./model",
      step: 2,
      steps: 4,
      accuracy: { first: 0.2, last: 0.8, best: 0.8, bestStep: 2 },
      tokens: 20,
      ms: 300,
    });
  });

  test("loads nothing, and lets no script run but its own", async () => {
    const text = runReport(await digestOf(metrics, [sample()]));
    const [, policy] = /Content-Security-Policy" content="([^"]*)"/.exec(text)!;
    const scripts = [...text.matchAll(/<script>(.*?)<\/script>/gs)].map((match) => match[1]!);
    expect(scripts).toHaveLength(1);
    const hash = createHash("sha256").update(scripts[0]!).digest("base64");
    expect(policy).toContain("default-src &#39;none&#39;");
    expect(policy).toContain(`script-src &#39;sha256-${hash}&#39;`);
    expect(text).not.toMatch(/https?:|\bsrc=|@import|url\(/);
    // The script is JavaScript.
    expect(() => new Function(scripts[0]!)).not.toThrow();
  });

  test("a completion, a prompt, a verdict and settings may contain anything", async () => {
    const hostile = `</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>"'\u202e\u0000\u001b`;
    const told = await digestOf(metrics, [
      sample({
        tokenText: [hostile, "", "x"],
        prompt: hostile,
        privileged: hostile,
        id: hostile,
        detail: { said: hostile },
      }),
    ]);
    const named = { ...told, name: hostile, config: { ...config, config: { ...config.config, model: hostile } } };
    const text = runReport(named);
    expect([text.split("<script>").length, text.includes("<img")]).toEqual([2, false]);
    expect(/(?!\n)[\p{Cc}\u202e]/u.exec(text)).toBeNull();
    expect(text).toContain("&lt;img src=x onerror=alert(1)&gt;");
  });

  test("colours a token by its weight, as strongly as the clip allows, and reads it out", async () => {
    const text = runReport(await digestOf(metrics, [sample({ weights: [1, 1.5, 0.75, null] })]));
    const tokens = [...text.matchAll(/<span class="t" tabindex="0" data-r="([^"]*)"(?: style="([^"]*)")?>/g)];
    expect(tokens.map((match) => match[2])).toEqual([
      undefined,
      "background:rgb(var(--more)/0.75)",
      "background:rgb(var(--less)/0.43)",
      undefined,
    ]);
    expect(tokens.map((match) => match[1])).toEqual([
      "log P student -1 · log P teacher -0.5 · delta +0.500 · weight 1 · A 1",
      "log P student -1 · log P teacher -0.5 · delta +0.500 · weight 1.5 · A 1.5",
      "log P student -1 · log P teacher -0.5 · delta +0.500 · weight 0.75 · A 0.75",
      "log P student -1 · log P teacher -0.5 · delta +0.500 · weight not finite · A 1",
    ]);
  });

  test("shows no curve of what was never there, or never anything but 0", async () => {
    const text = runReport(await digestOf(metrics, []));
    const titles = (page: string) => [...page.matchAll(/<figcaption><b>([^<]*)/g)].map((match) => match[1]);
    expect(titles(text)).toEqual(["Accuracy", "Reward", "Time of a step"]);
    const more = runReport(await digestOf([line(1, { klMean: 0, loss: 1 }), line(2, { klMean: 0.1, loss: 1 })], []));
    expect(titles(more)).toEqual(["Loss", "KL", "Time of a step"]);
  });

  test("draws the clip of the weights, the default where the run set none", async () => {
    const told = await digestOf([line(1, { evidenceWeightP50: 1 })], []);
    const guides = (objective: object) => {
      const text = runReport({ ...told, config: { ...config, config: { ...config.config, objective } } });
      const [chart] = text.slice(text.indexOf("<b>Evidence weights")).split("</figure>");
      const ticks = [...chart!.matchAll(/text-anchor="end">([^<]*)/g)].map((match) => Number(match[1]));
      return [chart!.match(/class="guide"/g)!.length, ticks[0], ticks.at(-1)];
    };
    expect(guides({})).toEqual([3, 0.8, 1.2]);
    expect(guides({ evidenceClip: 0.5 })).toEqual([3, 0.5, 1.5]);
  });

  test("a run that has not begun has a page too", async () => {
    const text = runReport(await digestOf([], []));
    expect(text).toContain("0 of 4");
    expect(text.slice(0, text.indexOf("<script>"))).not.toMatch(/undefined|unknown|NaN/);
  });
});

test("a page of completions in a file holds those that it shows, however many there are", async () => {
  setFlagsFromString("--expose-gc");
  const report = createCreditReport("rows", config);
  const held = Array.from({ length: 1000 }, (_, i) => {
    const one = sample({ id: `row#${i}` });
    report.add(one);
    return new WeakRef(one);
  });
  // What a WeakRef was made of stays until the end of its turn.
  await setImmediate();
  runInNewContext("gc")();
  expect(held.filter((one) => one.deref() !== undefined).length).toBeLessThan(300);
  expect(report.end()).toContain("200 of 1000 completions: the first. A teacher spoke about 1000.");
});
