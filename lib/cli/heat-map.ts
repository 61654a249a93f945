import { detailText } from "../report/detail-text.js";
import { tokenName, visible } from "../report/html.js";
import { mean, signed } from "../report/numbers.js";
import {
  deltaAt,
  hasAdvantages,
  LEAST_STRENGTH,
  legendValues,
  strengthOf,
  type View,
  viewOf,
  wasRead,
} from "../report/picture.js";
import type { SampleLine } from "../trainer/run-folder.js";
import { oneLine } from "./one-line.js";
import { tableLines } from "./table.js";

export interface HeatMapOptions {
  /** Backgrounds in ANSI colours; else strong tokens are followed by their weight. */
  readonly color: boolean;
  /** evidenceClip: colours are strongest at this distance of a weight from 1. */
  readonly clip: number;
  /** Whether advantages of completions are learned from, and shown. */
  readonly rewarded: boolean;
}

/** Of the 256-colour palette, weak to strong; the text on them is black, so that any terminal's own colours will do. */
const MORE = [223, 216, 209, 202];
const LESS = [195, 153, 111, 69];
/** Shares of the clip from which each shade is used. */
const SHADES = [LEAST_STRENGTH, 0.25, 0.5, 0.85];
/** Lines of the table of strongest tokens. */
const STRONGEST = 5;

const paint = (text: string, shade: number): string => `\u001b[48;5;${shade};38;5;16m${text}\u001b[0m`;

const dim = (text: string): string => `\u001b[2m${text}\u001b[0m`;

/** Each line by itself: a background that goes over the end of one would fill the rest of it. */
const onLines = (text: string, styled: (part: string) => string): string => text.replaceAll(/[^\n]+/g, styled);

interface Shown {
  readonly t: number;
  readonly value: number;
  /** From the value that says nothing. */
  readonly excess: number;
  /** undefined: too little for a colour. */
  readonly shade: number | undefined;
}

function shadeOf(value: number, view: View, clip: number): number | undefined {
  const strength = strengthOf(value, view, clip);
  const level = SHADES.findLastIndex((from) => Math.abs(strength) >= from);
  return level < 0 ? undefined : (strength > 0 ? MORE : LESS)[level];
}

/** Tokens of which there is something to be shown, with their place. */
function shownOf(sample: SampleLine, view: View, clip: number): Shown[] {
  return sample.tokenIds.flatMap((_, t) => {
    const value = view.valueAt(sample, t);
    return value === undefined ? [] : [{ t, value, excess: value - view.neutral, shade: shadeOf(value, view, clip) }];
  });
}

/** Token texts by place; one that completes a character later has none of its own. */
function coloured(sample: SampleLine, shown: readonly Shown[], view: View, { color, clip }: HeatMapOptions): string {
  const places = new Map(shown.map((one) => [one.t, one]));
  return sample.tokenText
    .map((text, t) => {
      const { value, excess, shade } = places.get(t) ?? {};
      const own = visible(text);
      if (wasRead(sample, t)) return color ? onLines(own, dim) : own;
      if (value === undefined || shade === undefined || own === "") return own;
      if (color) return onLines(own, (part) => paint(part, shade));
      // Before a line break, lest the next line begin with it.
      return Math.abs(excess!) < SHADES[1]! * view.full(clip) ? own : own.replace(/\n*$/, `{${value.toFixed(2)}}$&`);
    })
    .join("");
}

const told = (value: number | null | undefined): string => (typeof value === "number" ? value.toFixed(3) : "-");

/** Columns of the table of strongest tokens, where a completion has them. */
const COLUMNS: Readonly<Record<string, (sample: SampleLine, t: number) => string | undefined>> = {
  "log P": ({ logProbs }, t) => told(logProbs[t]),
  teacher: ({ teacherLogProbs: all }, t) => (all.length > 0 ? told(all[t]) : undefined),
  contrast: ({ contrastLogProbs: all }, t) => all && told(all[t]),
  delta(sample, t) {
    const delta = deltaAt(sample, t);
    return sample.teacherLogProbs.length === 0 ? undefined : delta === undefined ? "-" : signed(delta, 3);
  },
  weight: ({ evidenceWeights: all }, t) => (all.length > 0 ? told(all[t]) : undefined),
  divergence: ({ divergences: all }, t) => all && told(all[t]),
  A: ({ tokenAdvantages }, t) => told(tokenAdvantages[t]),
};

function strongest(sample: SampleLine, shown: readonly Shown[], rewarded: boolean): string[] {
  // Most weights of a large model lie at the clip: of those the larger difference of log-probs goes first.
  const surprise = (t: number) => Math.abs(deltaAt(sample, t) ?? 0);
  const ranked = shown
    .filter(({ shade }) => shade !== undefined)
    .sort((a, b) => Math.abs(b.excess) - Math.abs(a.excess) || surprise(b.t) - surprise(a.t) || a.t - b.t)
    .slice(0, STRONGEST);
  if (ranked.length === 0) return [];
  const credited = hasAdvantages(sample, rewarded);
  const columns = Object.entries(COLUMNS).filter(
    ([name, of]) => of(sample, 0) !== undefined && (credited || name !== "A"),
  );
  const rows = ranked.map(({ t }) => [
    String(t),
    JSON.stringify(tokenName(sample.tokenText[t] ?? "")),
    ...columns.map(([, of]) => of(sample, t)!),
  ]);
  return tableLines([["place", "token", ...columns.map(([name]) => name)], ...rows]).map((line) => `  ${line}`);
}

/** What the ends of a legend mean. */
const ABOUT: Readonly<Record<View["name"], string>> = {
  weight: "above 1: blamed where A < 0, praised where A > 0; below 1: spared, passed over",
  divergence: "nats: how far the student's distribution is from the teacher's",
  delta: "log P teacher - log P student: what the student is taught of the token",
};

/** What the colours mean; once above all heat maps, which are of completions like this one. */
export function heatMapLegend(sample: SampleLine, { color, clip }: HeatMapOptions): string {
  const view = viewOf(sample);
  const scale = legendValues(view, clip).map((value) => {
    const shade = shadeOf(value, view, clip);
    const text = ` ${Number(value.toPrecision(3))} `;
    return color && shade !== undefined ? paint(text, shade) : text;
  });
  const how = color
    ? `${view.name} of a token:`
    : `{${view.name}} follows a token whose ${view.name} is not about ${view.neutral}:`;
  return `${how}${scale.join("")} ${ABOUT[view.name]}`;
}

/** A completion with every token marked by what the teacher made of it, then the strongest of them in numbers. */
export function heatMap(sample: SampleLine, o: HeatMapOptions): string {
  const { step, id, reward, advantage, prompt, privileged, tokenIds } = sample;
  const view = viewOf(sample);
  const shown = shownOf(sample, view, o.clip);
  const facts = [
    `${visible(id)}`,
    `step ${step}`,
    `reward ${reward ?? "none"}`,
    ...(o.rewarded ? [`A ${signed(advantage)}`] : []),
    `${tokenIds.length} tokens`,
    shown.length > 0 ? `mean ${view.name} ${mean(shown.map(({ value }) => value)).toFixed(3)}` : "no teacher was asked",
  ];
  const lines = [facts.join("  "), `  prompt   ${oneLine(prompt, 200)}`];
  if (privileged !== null && privileged !== "") lines.push(`  teacher  ${oneLine(privileged, 200)}`);
  const why = detailText(sample.detail);
  if (why !== "") lines.push(`  verdict  ${oneLine(why, 200)}`);
  return [...lines, coloured(sample, shown, view, o).replace(/\n$/, ""), ...strongest(sample, shown, o.rewarded)].join(
    "\n",
  );
}
