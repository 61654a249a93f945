/** What is shown of a run's tokens: their credit, or how far the student is from the teacher that it imitates. */
import type { SampleLine } from "../trainer/run-folder.js";
import { type Html, html } from "./html.js";
import { short, signed } from "./numbers.js";

/** Whether the model read the token between its turns: nothing is known of what it did not draw. */
export const wasRead = ({ mask }: SampleLine, t: number): boolean => mask?.[t] === 0;

/** log P of the teacher over what it is weighed against, which is the evidence at a token; undefined: there is none. */
export function deltaAt(sample: SampleLine, t: number): number | undefined {
  if (wasRead(sample, t)) return undefined;
  const { teacherLogProbs, contrastLogProbs, logProbs } = sample;
  const [teacher, against] = [teacherLogProbs[t], (contrastLogProbs ?? logProbs)[t]];
  return typeof teacher === "number" && typeof against === "number" ? teacher - against : undefined;
}

/** Whether tokens have advantages to be shown: without `rewarded` those alone whose teacher's word is one. */
export const hasAdvantages = ({ tokenAdvantages }: SampleLine, rewarded: boolean): boolean =>
  rewarded || tokenAdvantages.some((advantage) => advantage !== 0);

/** A number of each token that a picture is made of. */
export interface View {
  readonly name: "weight" | "divergence" | "delta";
  /** The value that says nothing. */
  readonly neutral: number;
  /** How far from there colours are full. `clip`: objective.evidenceClip. */
  readonly full: (clip: number) => number;
  /** Shares of that distance which a legend shows. */
  readonly shares: readonly number[];
  /** undefined: nothing is known of the token, or it was not in the loss. */
  readonly valueAt: (sample: SampleLine, t: number) => number | undefined;
}

const asNumber = (value: number | null | undefined): number | undefined =>
  typeof value === "number" ? value : undefined;

const BOTH_WAYS = [-1, -0.5, 0, 0.5, 1];

const weight: View = {
  name: "weight",
  neutral: 1,
  full: (clip) => clip,
  shares: BOTH_WAYS,
  valueAt: ({ teacherLogProbs, evidenceWeights, tokenAdvantages }, t) =>
    teacherLogProbs.length === 0 || tokenAdvantages[t] === 0 ? undefined : asNumber(evidenceWeights[t]),
};

/** In nats. */
const divergence: View = {
  name: "divergence",
  neutral: 0,
  full: () => 0.3,
  shares: [0.1, 0.5, 1],
  valueAt: (sample, t) => (wasRead(sample, t) ? undefined : asNumber(sample.divergences?.[t])),
};

/** In nats. */
const delta: View = { name: "delta", neutral: 0, full: () => 1, shares: BOTH_WAYS, valueAt: deltaAt };

/** What there is to be seen in a completion. */
export function viewOf({ divergences, teacherLogProbs, evidenceWeights }: SampleLine): View {
  if (divergences !== undefined) return divergence;
  return teacherLogProbs.length > 0 && evidenceWeights.length === 0 ? delta : weight;
}

/** What a legend shows of a view: values over its range of colours. */
export const legendValues = ({ neutral, full, shares }: View, clip: number): number[] =>
  shares.map((share) => neutral + share * full(clip));

/** Strengths below it have no colour, which would be noise. */
export const LEAST_STRENGTH = 0.05;

/** From -1 to 1: how strongly a value is coloured, cool or warm. */
export function strengthOf(value: number, { neutral, full }: View, clip: number): number {
  return Math.max(-1, Math.min(1, (value - neutral) / full(clip)));
}

/** The style of a strength; empty: none. */
function tint(strength: number): string {
  if (Math.abs(strength) < LEAST_STRENGTH) return "";
  return `background:rgb(var(${strength > 0 ? "--more" : "--less"})/${(0.12 + 0.63 * Math.abs(strength)).toFixed(2)})`;
}

export function styleAt(sample: SampleLine, t: number, clip: number): string {
  const view = viewOf(sample);
  const value = view.valueAt(sample, t);
  return value === undefined ? "" : tint(strengthOf(value, view, clip));
}

/** The values of a legend, each in its colour. */
function scale(view: View, clip: number, text: (value: number) => string): Html[] {
  return legendValues(view, clip).map(
    (value) => html` <span class="t" style="${tint(strengthOf(value, view, clip))}">${text(value)}</span>`,
  );
}

/** Title and explanation of a page's completions; `credited` of them a teacher gave weights. */
export function captionOf(
  samples: readonly SampleLine[],
  credited: number,
  clip: number,
): { title: string; about: Html } {
  if (samples.every(({ heldOut }) => heldOut)) {
    return {
      title: "Answers to held-out rows",
      about: html`What the model answered at evaluations, drawn greedily, and what the verifier said of it.`,
    };
  }
  const views = new Set(samples.map(viewOf));
  if (views.has(divergence)) {
    const shown = scale(divergence, clip, short);
    return {
      title: "Divergence from the teacher, token by token",
      about: html`The deeper the colour, the further the student's distribution is from the teacher's:${shown} nats and more. The update brings it nearer at every token, whatever the verdict.`,
    };
  }
  if (views.has(delta)) {
    const shown = scale(delta, clip, (value) => signed(value, 1));
    return {
      title: "What the teacher says of the drawn tokens",
      about: html`log P teacher \u2212 log P student of each token, which is its advantage or a part of it:${shown}.`,
    };
  }
  const shown = scale(weight, clip, short);
  return {
    title: "Credit, token by token",
    about:
      credited > 0
        ? html`The verifier gives the sign of A; the teacher, who saw more, gives each token its weight: ${shown}. Where A < 0, a token that counts more is blamed, one that counts less is spared; where A > 0, praised and passed over.`
        : html`No teacher spoke about these completions, so that all tokens count alike.`,
  };
}
