import type { SampleLine } from "../trainer/run-folder.js";
import { detailText } from "./detail-text.js";
import type { RunDigest } from "./digest.js";
import { type Html, html, visible } from "./html.js";
import { short, signed } from "./numbers.js";
import { captionOf, deltaAt, hasAdvantages, styleAt, wasRead } from "./picture.js";
import { clipOf, isRewarded } from "./settings.js";

const told = (value: number | null | undefined): string =>
  value === null || value === undefined ? "not finite" : short(value);

interface Look {
  /** evidenceClip: colours are strongest at this distance of a weight from 1. */
  readonly clip: number;
  /** Whether advantages of completions are learned from, and shown. */
  readonly rewarded: boolean;
}

function readingsOf(sample: SampleLine, t: number, rewarded: boolean): string[] {
  if (wasRead(sample, t)) return ["read, not drawn: no part of the loss"];
  const { logProbs, teacherLogProbs, contrastLogProbs, evidenceWeights, divergences, tokenAdvantages } = sample;
  const delta = deltaAt(sample, t);
  return [
    `log P student ${told(logProbs[t])}`,
    ...(teacherLogProbs.length > 0 ? [`log P teacher ${told(teacherLogProbs[t])}`] : []),
    ...(contrastLogProbs === undefined ? [] : [`contrast ${told(contrastLogProbs[t])}`]),
    ...(delta === undefined ? [] : [`delta ${signed(delta, 3)}`]),
    ...(evidenceWeights.length > 0 ? [`weight ${told(evidenceWeights[t])}`] : []),
    ...(divergences === undefined ? [] : [`divergence ${told(divergences[t])}`]),
    ...(hasAdvantages(sample, rewarded) ? [`A ${told(tokenAdvantages[t])}`] : []),
  ];
}

function token(sample: SampleLine, t: number, { clip, rewarded }: Look): Html {
  const text = visible(sample.tokenText[t] ?? "");
  const readings = readingsOf(sample, t, rewarded);
  const style = styleAt(sample, t, clip);
  return html`<span class="t${text === "" && " part"}${wasRead(sample, t) && " read"}" tabindex="0" data-r="${readings.join(" \u00b7 ")}"${style !== "" && html` style="${style}"`}>${text === "" ? "\u200b" : text}</span>`;
}

function card(sample: SampleLine, look: Look): Html {
  const { step, id, reward, advantage, prompt, privileged } = sample;
  const side = !look.rewarded || advantage === 0 ? "flat" : advantage > 0 ? "up" : "down";
  const why = detailText(sample.detail);
  return html`<article class="sample ${side}" data-step="${step}" data-side="${side}">
<header><b>${id}</b> <span>step ${step}</span> <span>reward ${reward === null ? "none" : short(reward)}</span> ${look.rewarded && html`<span class="a">A ${signed(advantage)}</span>`}${why !== "" && html` <small>${why}</small>`}</header>
<details><summary>prompt${privileged !== null && " and what the teacher saw besides"}</summary><pre>${visible(prompt)}</pre>${privileged !== null && html`<pre class="seen">${visible(privileged)}</pre>`}</details>
<p class="tokens">${sample.tokenIds.map((_, t) => token(sample, t, look))}</p>
</article>`;
}

function filters(steps: readonly number[], sides: boolean): Html {
  return html`<p class="filters"><label>Step <select id="by-step"><option value="">all</option>${steps.map(
    (step) => html`<option>${step}</option>`,
  )}</select></label> ${sides && html`<label>Advantage <select id="by-side"><option value="">any</option><option value="up">positive</option><option value="down">negative</option></select></label> `}<output id="reading">Point at a token to read it.</output></p>`;
}

/** Completions with every token coloured by what the teacher made of it. `chosen` says which they are of all. */
export function samplesSection(
  { samples, sampleCount, creditedCount, config }: Omit<RunDigest, "metrics">,
  chosen: string,
): Html | undefined {
  if (samples.length === 0) return undefined;
  const steps = [...new Set(samples.map((sample) => sample.step))];
  const clip = clipOf(config);
  const rewarded = isRewarded(config) && !samples.every(({ heldOut }) => heldOut);
  const { title, about } = captionOf(samples, creditedCount, clip);
  return html`<section><h2>${title}</h2>
<p>${about}</p>
<p><small>${samples.length} of ${sampleCount} completions: ${chosen}.${creditedCount > 0 && ` A teacher spoke about ${creditedCount}.`}</small></p>
${filters(steps, rewarded)}${samples.map((sample) => card(sample, { clip, rewarded }))}</section>`;
}
