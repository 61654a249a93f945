/** What colours say in a run's completions: its credit, or how far the student is from the teacher that it imitates. */
import type { SampleLine } from "../trainer/run-folder.js";
import { type Html, html } from "./html.js";
import { short, signed } from "./numbers.js";

/** log P of the teacher over what it is weighed against, which is the evidence at a token; undefined: there is none. */
export function deltaAt({ teacherLogProbs, contrastLogProbs, logProbs }: SampleLine, t: number): number | undefined {
  const [teacher, against] = [teacherLogProbs[t], (contrastLogProbs ?? logProbs)[t]];
  return typeof teacher === "number" && typeof against === "number" ? teacher - against : undefined;
}

/** The background of a weight: warm above 1, cool below, as strong as the clip allows. */
function tint(weight: number, clip: number): string {
  const strength = Math.min(1, Math.abs(weight - 1) / clip);
  // Below a twentieth a colour would be noise.
  if (strength < 0.05) return "";
  return `background:rgb(var(${weight > 1 ? "--more" : "--less"})/${(0.12 + 0.63 * strength).toFixed(2)})`;
}

export interface Picture {
  readonly title: string;
  readonly about: Html;
  /** How many completions it is about, where not about all. */
  readonly counted: string;
  /** The style of a token; empty: none. */
  readonly tintOf: (sample: SampleLine, t: number) => string;
}

const swatch = (text: string, style: string): Html => html` <span class="t" style="${style}">${text}</span>`;

function credit(creditedCount: number, clip: number): Picture {
  const scale = [1 - clip, 1 - clip / 2, 1, 1 + clip / 2, 1 + clip].map((w) => swatch(short(w), tint(w, clip)));
  return {
    title: "Credit",
    about:
      creditedCount > 0
        ? html`The verifier gives the sign of A; the teacher, who saw more, gives each token its weight: ${scale}. Where A < 0, a token that counts more is blamed, one that counts less is spared; where A > 0, praised and passed over.`
        : html`No teacher spoke about these completions, so that all tokens count alike.`,
    counted: ` A teacher spoke about ${creditedCount}.`,
    tintOf({ evidenceWeights, teacherLogProbs, tokenAdvantages }, t) {
      const weight = evidenceWeights[t];
      const counts = teacherLogProbs.length > 0 && typeof weight === "number" && tokenAdvantages[t] !== 0;
      return counts ? tint(weight, clip) : "";
    },
  };
}

/** A divergence, in nats, whose colour is full. */
const FULL_DIVERGENCE = 0.3;
const divergenceTint = (nats: number): string => tint(1 + Math.min(nats, FULL_DIVERGENCE), FULL_DIVERGENCE);

const divergence: Picture = {
  title: "Divergence from the teacher",
  about: html`The deeper the colour, the further the student's distribution is from the teacher's:${[0.1, 0.5, 1].map((share) => swatch(short(share * FULL_DIVERGENCE), divergenceTint(share * FULL_DIVERGENCE)))} nats and more. The update brings it nearer at every token, whatever the verdict.`,
  counted: "",
  tintOf({ divergences }, t) {
    const nats = divergences?.[t];
    return typeof nats === "number" ? divergenceTint(nats) : "";
  },
};

/** A difference of log-probs, in nats, whose colour is full. */
const FULL_DIFFERENCE = 1;
const differenceTint = (nats: number): string => tint(1 + nats, FULL_DIFFERENCE);

const difference: Picture = {
  title: "What the teacher says of the drawn tokens",
  about: html`log P teacher \u2212 log P student of each token, which is its advantage or a part of it:${[-1, -0.5, 0.5, 1].map((nats) => swatch(signed(nats, 1), differenceTint(nats)))}.`,
  counted: "",
  tintOf(sample, t) {
    const nats = deltaAt(sample, t);
    return nats === undefined ? "" : differenceTint(nats);
  },
};

/** The picture that these completions can be shown in. */
export function pictureOf(samples: readonly SampleLine[], creditedCount: number, clip: number): Picture {
  if (samples.some(({ divergences }) => divergences !== undefined)) return divergence;
  const said = samples.some(({ teacherLogProbs }) => teacherLogProbs.length > 0);
  return said && creditedCount === 0 ? difference : credit(creditedCount, clip);
}
