import { duration } from "../duration.js";
import { chart, type Series } from "./chart.js";
import { type ArmResult, type ComparedArm, type Comparison, differingSettings } from "./comparison.js";
import { accuracyText, endsNote, endsText, pointsText, reachText, seedNotes } from "./comparison-words.js";
import { points } from "./curves.js";
import { type Html, html } from "./html.js";
import { page } from "./page.js";
import { settingText } from "./settings.js";

function armCurve({ name, curve }: ArmResult, color: number): Series {
  const shown = curve.map(({ step, mean, sd }) => ({
    x: step,
    y: mean,
    ...(sd !== undefined && { low: Math.max(0, mean - sd), high: Math.min(1, mean + sd) }),
  }));
  return { name, points: shown, color };
}

/** The mean over an arm's runs of a quantity of training, step by step. */
function trainingCurve({ name, runs }: ComparedArm, metric: string, color: number): Series {
  const sums = new Map<number, { sum: number; n: number }>();
  for (const { metrics } of runs) {
    for (const { x, y } of points(
      metrics.filter((line) => line.kind === "train"),
      metric,
    )) {
      const { sum, n } = sums.get(x) ?? { sum: 0, n: 0 };
      sums.set(x, { sum: sum + y, n: n + 1 });
    }
  }
  const shown = [...sums].sort(([a], [b]) => a - b).map(([x, { sum, n }]) => ({ x, y: sum / n }));
  return { name, points: shown, color };
}

function charts({ arms: results }: Comparison, arms: readonly ComparedArm[]): Html {
  const over = (metric: string) => arms.map((arm, i) => trainingCurve(arm, metric, i));
  const all = [
    chart({
      title: "Held-out accuracy",
      about: "Greedy; mean and standard deviation over the seeds",
      unit: "share",
      include: [0, 1],
      series: results.map(armCurve),
    }),
    chart({ title: "Reward in training", about: "Mean over the runs that came so far", series: over("reward") }),
    chart({ title: "Entropy", about: "Mean over the runs that came so far", include: [0], series: over("entropy") }),
    chart({
      title: "Length",
      about: "Tokens of a completion; mean over the runs that came so far",
      include: [0],
      series: over("length"),
    }),
  ];
  return html`<div class="charts">${all.filter((one) => one !== undefined)}</div>`;
}

function resultTable(comparison: Comparison): Html {
  const rows = comparison.arms.map(
    (arm) =>
      html`<tr><td>${arm.name}</td><td>${arm.seeds}</td><td>${endsText(arm)}</td><td>${accuracyText(arm.last)}</td><td>${accuracyText(arm.average)}</td><td>${
        arm.reachesBaseline ?? "never"
      }</td><td>${arm.difference ? pointsText(arm.difference) : "\u2013"}</td><td>${arm.stepMs === undefined ? "\u2013" : duration(arm.stepMs)}</td></tr>`,
  );
  return html`<table><thead><tr><th>arm</th><th>seeds</th><th>ended at step</th><th>last accuracy</th><th>mean over the curve</th><th>at ${comparison.baseline}'s last by step</th><th>last \u2212 ${comparison.baseline}'s, by seed</th><th>a step</th></tr></thead><tbody>${rows}</tbody></table>`;
}

function settingsTable(arms: readonly ComparedArm[]): Html | undefined {
  const differing = differingSettings(arms.flatMap(({ runs }) => runs.map((run) => run.config)));
  if (differing.length === 0) return undefined;
  const rows = arms.map(
    ({ name, runs }) =>
      html`<tr><td>${name}</td>${differing.map((path) => html`<td>${settingText(runs[0]!.config, path) ?? "\u2013"}</td>`)}</tr>`,
  );
  return html`<table><thead><tr><th>arm</th>${differing.map((path) => html`<th>${path}</th>`)}</tr></thead><tbody>${rows}</tbody></table>`;
}

/** Several ways of training side by side, as a page in one file that loads nothing. */
export function compareReport(title: string, comparison: Comparison, arms: readonly ComparedArm[]): string {
  const notes = [endsNote(comparison), ...seedNotes(comparison)].filter((note) => note !== undefined);
  const links = arms.map(
    ({ name, runs }) =>
      html`<li>${name}: ${runs.map(({ name: run, link }) => (link === undefined ? html`${run} ` : html`<a href="${link}">${run}</a> `))}</li>`,
  );
  const body = html`<header><h1>${title}</h1><ul>${comparison.arms.slice(1).map((arm) => html`<li>${reachText(arm, comparison)}</li>`)}</ul>${notes.length > 0 && html`<ul class="warnings">${notes.map((note) => html`<li>${note}</li>`)}</ul>`}</header>
<section><h2>Results</h2>${charts(comparison, arms)}<div class="wide">${resultTable(comparison)}</div>
<p><small>\u00b1 is the standard deviation over the seeds, in percentage points. Seeds are of prompts and completions; where runs begin with the same model, its own spread is not in here.</small></p></section>
<section><h2>What sets the arms apart</h2>${settingsTable(arms) ?? html`<p>Nothing: they differ in their seeds alone.</p>`}</section>
<section><h2>Runs</h2><ul>${links}</ul></section>`;
  return page(`rlsd: ${title}`, body);
}
