import type { MetricsLine } from "../trainer/metrics-line.js";
import { type Chart, chart, type Point, type Series } from "./chart.js";
import type { RunDigest } from "./digest.js";
import { type Html, html } from "./html.js";
import { numberIn } from "./numbers.js";
import { clipOf } from "./settings.js";

type Lines = readonly MetricsLine[];

/** A quantity over the steps at which it is there, with a band between two others. */
export function points(lines: Lines, name: string, band?: readonly [string, string]): Point[] {
  return lines.flatMap((line) => {
    const y = numberIn(line, name);
    if (y === undefined) return [];
    const [low, high] = band ? [numberIn(line, band[0]), numberIn(line, band[1])] : [];
    return [{ x: line.step, y, ...(low !== undefined && high !== undefined && { low, high }) }];
  });
}

/** Lines named by quantities; a quantity that was never anything but 0 says nothing and is left out. */
function series(lines: Lines, names: Readonly<Record<string, string>>): Series[] {
  return Object.entries(names).flatMap(([name, label], color) => {
    const all = points(lines, name);
    return all.some((p) => p.y !== 0) ? [{ name: label, points: all, color }] : [];
  });
}

/** A setting over the steps, where it is not the same throughout: that stands among the settings. */
function schedule(train: Lines, name: string): Series[] {
  const all = points(train, name);
  return all.some((p) => p.y !== all[0]!.y) ? [{ name, points: all }] : [];
}

/** Reasons that are shown: more lines than that are not told apart. */
const MOST_REASONS = 4;

/** The reasons that verifiers gave most. One that a step does not have was not given there. */
function reasons(train: Lines): Series[] {
  const names = new Set(train.flatMap((line) => Object.keys(line)).filter((name) => name.startsWith("reason/")));
  const share = (line: MetricsLine, name: string) => numberIn(line, name) ?? 0;
  const total = (name: string) => train.reduce((sum, line) => sum + share(line, name), 0);
  const most = [...names].toSorted((a, b) => total(b) - total(a)).slice(0, MOST_REASONS);
  return most.map((name) => ({
    name: name.slice("reason/".length),
    points: train.map((line) => ({ x: line.step, y: share(line, name) })),
  }));
}

function results(train: Lines, evals: Lines): Chart[] {
  const sampled = [...new Set(evals.flatMap((line) => Object.keys(line)))].filter((name) =>
    /^(avg|pass)@\d+$/.test(name),
  );
  const said = reasons(train);
  const parts = [...new Set(train.flatMap((line) => Object.keys(line)))].filter((name) => name.startsWith("reward/"));
  return [
    {
      title: "Accuracy",
      about: "Held out with its 95% interval, and of the completions trained on",
      unit: "share",
      include: [0, 1],
      series: [
        { name: "held out", points: points(evals, "accuracy", ["accuracyLow", "accuracyHigh"]) },
        { name: "training", points: points(train, "accuracy") },
        ...sampled.map((name) => ({ name, points: points(evals, name) })),
      ],
    },
    {
      title: "Reward",
      about:
        parts.length === 0 ? "Mean of the completions trained on" : "Mean of the completions trained on, and its parts",
      series: series(train, {
        reward: "reward",
        ...Object.fromEntries(parts.map((name) => [name, name.slice("reward/".length)])),
      }),
    },
    {
      title: "What the verifier said",
      // One line has no legend.
      about: `Share of the judged completions by the reason of their reward${said.length === 1 ? `: ${said[0]!.name}` : ""}`,
      unit: "share",
      include: [0, 1],
      series: said,
    },
  ];
}

function credit(train: Lines, clip: number): Chart[] {
  const quantiles = points(train, "evidenceWeightP50", ["evidenceWeightP05", "evidenceWeightP95"]);
  const inner = points(train, "evidenceWeightP50", ["evidenceWeightP25", "evidenceWeightP75"]);
  return [
    {
      title: "Evidence weights",
      about: "Median, middle half and 5% to 95%; dashed: the clip",
      series: [
        { name: "median, 5% to 95%", points: quantiles, color: 0 },
        { name: "25% to 75%", points: inner, color: 0 },
      ],
      guides: [1 - clip, 1, 1 + clip],
    },
    {
      title: "Evidence by verdict",
      about: "Mean of log P teacher \u2212 log P student: should be higher where A > 0",
      series: series(train, { deltaMeanPositive: "A > 0", deltaMeanNegative: "A < 0" }),
      guides: [0],
    },
    {
      title: "Divergence",
      about: "Mean of a token: how far the student's distribution is from the teacher's, in nats",
      include: [0],
      series: series(train, { divergenceMean: "divergence" }),
    },
    {
      title: "Clipped weights",
      about: "Share of tokens whose weight reached the clip",
      unit: "share",
      include: [0],
      series: series(train, { evidenceClippedHigh: "high", evidenceClippedLow: "low" }),
    },
    {
      title: "Credit mix",
      about: "lambda: 0 is the bare objective",
      include: [0, 1],
      series: schedule(train, "creditMix"),
    },
  ];
}

function optimization(train: Lines, evals: Lines): Chart[] {
  const held = points(evals, "loss");
  return [
    held.length === 0
      ? { title: "Loss", about: "Its value; the gradient is what counts", series: series(train, { loss: "loss" }) }
      : {
          title: "Loss",
          about: "Mean of \u2212log P over the tokens of traces",
          include: [0],
          series: [
            { name: "held out", points: held },
            { name: "training", points: points(train, "loss") },
          ],
        },
    {
      title: "Gradient norm",
      about: "Before clipping",
      include: [0],
      series: series(train, { gradientNorm: "norm" }),
    },
    { title: "Learning rate", about: "Of AdamW", include: [0], series: schedule(train, "learningRate") },
    {
      title: "Clipped ratios",
      about: "Share of tokens whose ratio left its range",
      unit: "share",
      include: [0],
      series: series(train, { ratioClippedHigh: "high", ratioClippedLow: "low", dualClipped: "dual" }),
    },
    { title: "KL", about: "From the reference", include: [0], series: series(train, { klMean: "KL" }) },
  ];
}

function rollouts(train: Lines): Chart[] {
  return [
    {
      title: "Length",
      about: "Tokens of a completion",
      include: [0],
      series: series(train, { length: "mean", lengthMax: "longest" }),
    },
    { title: "Turns", about: "Of the model in a conversation", include: [0], series: series(train, { turns: "mean" }) },
    {
      title: "Entropy",
      about: "Mean surprise of the drawn tokens; near 0 there is nothing left to explore",
      include: [0],
      series: series(train, { entropy: "entropy" }),
    },
    {
      title: "Lost groups and completions",
      about: "Shares that teach nothing, or less than they might",
      unit: "share",
      include: [0],
      series: series(train, {
        zeroVarianceFraction: "groups all alike",
        truncatedFraction: "cut off",
        noPrivilegeFraction: "without privileged text",
        leakRate: "leaks",
      }),
    },
  ];
}

function costs(train: Lines): Chart[] {
  const names = [...new Set(train.flatMap((line) => Object.keys(line.time)))].filter(
    (name) => name !== "total" && name !== "tokensPerSecond",
  );
  const timed = (name: string) =>
    train.flatMap((line) => (line.time[name] === undefined ? [] : [{ x: line.step, y: line.time[name] }]));
  return [
    {
      title: "Time of a step",
      about: "By phase",
      unit: "milliseconds",
      include: [0],
      series: names.map((name) => ({ name, points: timed(name) })),
    },
    {
      title: "Throughput",
      about: "Completion tokens a second, whole steps",
      include: [0],
      series: [{ name: "tokens/s", points: timed("tokensPerSecond") }],
    },
  ];
}

/** A section of curves; undefined where none has anything to show. */
function section(title: string, charts: readonly Chart[]): Html | undefined {
  const shown = charts.map(chart).filter((one) => one !== undefined);
  return shown.length === 0 ? undefined : html`<section><h2>${title}</h2><div class="charts">${shown}</div></section>`;
}

/** Every curve of a run that has something to show. */
export function curveSections({ metrics, config }: RunDigest) {
  const train = metrics.filter((line) => line.kind === "train");
  const evals = metrics.filter((line) => line.kind === "eval");
  return {
    results: section("Results", results(train, evals)),
    credit: section("Evidence", credit(train, clipOf(config))),
    completions: section("Completions", rollouts(train)),
    optimization: section("Optimization", optimization(train, evals)),
    cost: section("Cost", costs(train)),
  };
}
