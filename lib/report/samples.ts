import type { SampleLine } from "../trainer/run-folder.js";
import type { RunDigest } from "./digest.js";
import { type Html, html, visible } from "./html.js";
import { short, signed } from "./numbers.js";
import { clipOf } from "./settings.js";

/** log P of the teacher over what it is weighed against, which is the evidence at a token; undefined: there is none. */
export function deltaAt({ teacherLogProbs, contrastLogProbs, logProbs }: SampleLine, t: number): number | undefined {
  const [teacher, against] = [teacherLogProbs[t], (contrastLogProbs ?? logProbs)[t]];
  return typeof teacher === "number" && typeof against === "number" ? teacher - against : undefined;
}

const told = (value: number | null | undefined): string =>
  value === null || value === undefined ? "not finite" : short(value);

/** The background of a weight: warm above 1, cool below, as strong as the clip allows. */
function tint(weight: number, clip: number): string {
  const strength = Math.min(1, Math.abs(weight - 1) / clip);
  // Below a twentieth a colour would be noise.
  if (strength < 0.05) return "";
  return `background:rgb(var(${weight > 1 ? "--more" : "--less"})/${(0.12 + 0.63 * strength).toFixed(2)})`;
}

function token(sample: SampleLine, t: number, clip: number): Html {
  const text = visible(sample.tokenText[t] ?? "");
  const weight = sample.evidenceWeights[t];
  const advantage = sample.tokenAdvantages[t];
  const credited = sample.teacherLogProbs.length > 0;
  const [student, teacher] = [sample.logProbs[t], sample.teacherLogProbs[t]];
  const delta = deltaAt(sample, t);
  const contrast = sample.contrastLogProbs;
  const readings = [
    `log P student ${told(student)}`,
    ...(credited ? [`log P teacher ${told(teacher)}`] : []),
    ...(contrast === undefined ? [] : [`contrast ${told(contrast[t])}`]),
    ...(delta === undefined ? [] : [`delta ${signed(delta, 3)}`]),
    ...(credited ? [`weight ${told(weight)}`] : []),
    `A ${told(advantage)}`,
  ];
  const style = credited && typeof weight === "number" && advantage !== 0 ? tint(weight, clip) : "";
  return html`<span class="t${text === "" && " part"}" tabindex="0" data-r="${readings.join(" \u00b7 ")}"${style !== "" && html` style="${style}"`}>${text === "" ? "\u200b" : text}</span>`;
}

type Detail = Readonly<Record<string, unknown>>;

const isDetail = (value: unknown): value is Detail =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What the verifier said besides the reward; of a sum or a gate each part with its own. */
function detailText(detail: Detail): string {
  const told = Object.entries(detail).flatMap(([name, value]) => {
    if (["string", "number", "boolean"].includes(typeof value)) return [`${name} ${String(value).slice(0, 200)}`];
    if (!isDetail(value) || !("reward" in value)) return [];
    const inner = isDetail(value.detail) ? detailText(value.detail) : "";
    return [`${name} ${value.reward ?? "none"}${inner && ` (${inner})`}`];
  });
  return told.join(", ");
}

function card(sample: SampleLine, clip: number): Html {
  const { step, id, reward, advantage, prompt, privileged } = sample;
  const side = advantage > 0 ? "up" : advantage < 0 ? "down" : "flat";
  const why = detailText(sample.detail);
  return html`<article class="sample ${side}" data-step="${step}" data-side="${side}">
<header><b>${id}</b> <span>step ${step}</span> <span>reward ${reward === null ? "none" : short(reward)}</span> <span class="a">A ${signed(advantage)}</span>${why !== "" && html` <small>${why}</small>`}</header>
<details><summary>prompt${privileged !== null && " and what the teacher saw besides"}</summary><pre>${visible(prompt)}</pre>${privileged !== null && html`<pre class="seen">${visible(privileged)}</pre>`}</details>
<p class="tokens">${sample.tokenIds.map((_, t) => token(sample, t, clip))}</p>
</article>`;
}

function filters(steps: readonly number[]): Html {
  return html`<p class="filters"><label>Step <select id="by-step"><option value="">all</option>${steps.map(
    (step) => html`<option>${step}</option>`,
  )}</select></label> <label>Advantage <select id="by-side"><option value="">any</option><option value="up">positive</option><option value="down">negative</option></select></label> <output id="reading">Point at a token to read it.</output></p>`;
}

/** Completions with every token coloured by its evidence weight. `chosen` says which they are of all. */
export function samplesSection(
  { samples, sampleCount, creditedCount, config }: Omit<RunDigest, "metrics">,
  chosen: string,
): Html | undefined {
  if (samples.length === 0) return undefined;
  const clip = clipOf(config);
  const steps = [...new Set(samples.map((sample) => sample.step))];
  const scale = [1 - clip, 1 - clip / 2, 1, 1 + clip / 2, 1 + clip].map(
    (weight) => html` <span class="t" style="${tint(weight, clip)}">${short(weight)}</span>`,
  );
  const about =
    creditedCount > 0
      ? html`The verifier gives the sign of A; the teacher, who saw more, gives each token its weight: ${scale}. Where A < 0, a token that counts more is blamed, one that counts less is spared; where A > 0, praised and passed over.`
      : html`No teacher spoke about these completions, so that all tokens count alike.`;
  return html`<section><h2>Credit, token by token</h2>
<p>${about}</p>
<p><small>${samples.length} of ${sampleCount} completions: ${chosen}. A teacher spoke about ${creditedCount}.</small></p>
${filters(steps)}${samples.map((sample) => card(sample, clip))}</section>`;
}
