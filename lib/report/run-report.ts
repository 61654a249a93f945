import { duration } from "../duration.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import { curveSections } from "./curves.js";
import type { RunDigest } from "./digest.js";
import { type Html, html } from "./html.js";
import { numberIn, percent } from "./numbers.js";
import { page } from "./page.js";
import { samplesSection } from "./samples.js";
import { numberSetting, rewardText, setting, settingText } from "./settings.js";
import { tokensSection } from "./tokens.js";
import { warningsOf } from "./warnings.js";

/** A run in a few numbers. An absent quantity is absent. */
export interface RunFacts {
  /** Of its folder. */
  readonly name: string;
  readonly algorithm: string;
  /** The folder that it began with. */
  readonly model: string;
  /** Updates that were logged. */
  readonly step: number;
  /** Updates that its settings ask for. */
  readonly steps?: number;
  /** Held-out greedy accuracy, from 0 to 1: first, last and best evaluation. */
  readonly accuracy?: {
    readonly first: number;
    readonly last: number;
    readonly best: number;
    readonly bestStep: number;
  };
  /** Drawn in all steps; of algorithm sft those that were learned. */
  readonly tokens: number;
  /** Milliseconds of steps and evaluations, without loading and saving. */
  readonly ms: number;
}

const numberOr0 = (line: MetricsLine, name: string): number => numberIn(line, name) ?? 0;

/** What `rlsd report` says of a run. */
export function factsOf({ name, config, metrics }: RunDigest): RunFacts {
  const train = metrics.filter((line) => line.kind === "train");
  const evals = metrics.filter((line) => line.kind === "eval" && typeof line.accuracy === "number");
  const steps = numberSetting(config, "steps");
  const best = evals.reduce<MetricsLine | undefined>(
    (a, b) => (a === undefined || numberOr0(b, "accuracy") > numberOr0(a, "accuracy") ? b : a),
    undefined,
  );
  return {
    name,
    algorithm: settingText(config, "algorithm") ?? "unknown",
    model: settingText(config, "model") ?? "unknown",
    step: train.at(-1)?.step ?? 0,
    ...(steps !== undefined && { steps }),
    ...(best && {
      accuracy: {
        first: numberOr0(evals[0]!, "accuracy"),
        last: numberOr0(evals.at(-1)!, "accuracy"),
        best: numberOr0(best, "accuracy"),
        bestStep: best.step,
      },
    }),
    tokens: train.reduce((sum, line) => sum + numberOr0(line, "tokens"), 0),
    ms: metrics.reduce((sum, line) => sum + (line.time.total ?? 0), 0),
  };
}

function fact(value: string, name: string): Html {
  return html`<li><b>${value}</b><span>${name}</span></li>`;
}

/** Algorithms without a teacher. */
const UNTAUGHT = ["grpo", "sft"];

/** What the teacher sees; of another model that reads the student's own prompts there is nothing to say. */
const shown = (algorithm: string, source: string | undefined): string =>
  source === undefined || algorithm === "opd" ? "" : ` with ${source}`;

function header(facts: RunFacts, digest: RunDigest): Html {
  const { accuracy, step, steps, tokens, ms } = facts;
  const said = (name: string) => settingText(digest.config, name);
  const rank = numberSetting(digest.config, "lora.rank") ?? 0;
  const [judge, teacher, source] = [setting(digest.config, "reward"), said("teacher.kind"), said("privileged.source")];
  const taught = UNTAUGHT.includes(facts.algorithm)
    ? false
    : teacher && `, teacher ${teacher}${shown(facts.algorithm, source)}`;
  const reward = judge === undefined ? undefined : rewardText(judge);
  return html`<header><h1>${facts.name}</h1>
<p class="soft">${facts.algorithm} on <code>${facts.model}</code>${rank > 0 && `, adapters of rank ${rank}`}${reward && html`, judged by <code>${reward}</code>`}${taught}; rlsd ${digest.config.version}</p>
<ul class="facts">${accuracy && fact(`${percent(accuracy.first)} \u2192 ${percent(accuracy.last)}`, "held-out accuracy")}${
    accuracy && fact(percent(accuracy.best), `best, at step ${accuracy.bestStep}`)
  }${fact(steps === undefined ? String(step) : `${step} of ${steps}`, "steps")}${fact(tokens.toLocaleString("en"), facts.algorithm === "sft" ? "tokens learned" : "tokens drawn")}${fact(duration(ms), "steps and evaluations")}</ul></header>`;
}

/** The report of one run: a page in one file that loads nothing from anywhere. */
export function runReport(digest: RunDigest): string {
  const warnings = warningsOf(digest);
  const { results, credit, completions, optimization, cost } = curveSections(digest);
  const chosen = digest.samples.some(({ heldOut }) => heldOut)
    ? "of evaluations spread over the run those to the first rows"
    : "of steps spread over the run the group with most to see, as far as samples were logged";
  const body = html`${header(factsOf(digest), digest)}
${warnings.length > 0 && html`<ul class="warnings">${warnings.map(({ metric, message }) => html`<li><code>${metric}</code>: ${message}</li>`)}</ul>`}
${results}${samplesSection(digest, chosen)}${tokensSection(digest)}${credit}${completions}${optimization}${cost}
<section><h2>Settings</h2><details><summary>config.json</summary><pre>${JSON.stringify(digest.config.config, null, 2)}</pre></details></section>`;
  return page(`rlsd: ${digest.name}`, body);
}
