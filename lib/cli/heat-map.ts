import { tokenName, visible } from "../report/html.js";
import { mean, signed } from "../report/numbers.js";
import { deltaAt } from "../report/picture.js";
import type { SampleLine } from "../trainer/run-folder.js";
import { oneLine } from "./one-line.js";
import { tableLines } from "./table.js";

export interface HeatMapOptions {
  /** Backgrounds in ANSI colours; else strong tokens are followed by their weight. */
  readonly color: boolean;
  /** evidenceClip: colours are strongest at this distance of a weight from 1. */
  readonly clip: number;
}

/** Of the 256-colour palette, weak to strong; the text on them is black, so that any terminal's own colours will do. */
const MORE = [223, 216, 209, 202];
const LESS = [195, 153, 111, 69];
/** Shares of the clip from which each shade is used. */
const SHADES = [0.05, 0.25, 0.5, 0.85];
/** Lines of the table of strongest tokens. */
const STRONGEST = 5;

const paint = (text: string, shade: number): string => `\u001b[48;5;${shade};38;5;16m${text}\u001b[0m`;

/** Tokens that the teacher spoke about and the loss saw, with their place. */
function weighted(sample: SampleLine): { t: number; weight: number }[] {
  if (sample.teacherLogProbs.length === 0) return [];
  return sample.evidenceWeights.flatMap((weight, t) =>
    typeof weight === "number" && sample.tokenAdvantages[t] !== 0 ? [{ t, weight }] : [],
  );
}

function shadeOf(weight: number, clip: number): number | undefined {
  const strength = Math.abs(weight - 1) / clip;
  const level = SHADES.findLastIndex((from) => strength >= from);
  return level < 0 ? undefined : (weight > 1 ? MORE : LESS)[level];
}

/** Token texts by place; one that completes a character later has none of its own. */
function coloured(sample: SampleLine, { color, clip }: HeatMapOptions): string {
  const weights = new Map(weighted(sample).map(({ t, weight }) => [t, weight]));
  return sample.tokenText
    .map((text, t) => {
      const weight = weights.get(t);
      const shade = weight === undefined ? undefined : shadeOf(weight, clip);
      const shown = visible(text);
      if (weight === undefined || shade === undefined || shown === "") return shown;
      // A background that goes over the end of a line would fill the rest of it.
      if (color) return shown.replaceAll(/[^\n]+/g, (part) => paint(part, shade));
      // Before a line break, lest the next line begin with it.
      return Math.abs(weight - 1) < SHADES[1]! * clip ? shown : shown.replace(/\n*$/, `{${weight.toFixed(2)}}$&`);
    })
    .join("");
}

const told = (value: number | null | undefined): string => (typeof value === "number" ? value.toFixed(3) : "-");

function strongest(sample: SampleLine, clip: number): string[] {
  const ranked = weighted(sample)
    .filter(({ weight }) => shadeOf(weight, clip) !== undefined)
    .sort((a, b) => Math.abs(b.weight - 1) - Math.abs(a.weight - 1) || a.t - b.t)
    .slice(0, STRONGEST);
  if (ranked.length === 0) return [];
  const rows = ranked.map(({ t, weight }) => {
    const delta = deltaAt(sample, t);
    const { logProbs, teacherLogProbs, contrastLogProbs, tokenAdvantages } = sample;
    return [
      String(t),
      JSON.stringify(tokenName(sample.tokenText[t] ?? "")),
      told(logProbs[t]),
      told(teacherLogProbs[t]),
      ...(contrastLogProbs === undefined ? [] : [told(contrastLogProbs[t])]),
      delta === undefined ? "-" : signed(delta, 3),
      weight.toFixed(3),
      told(tokenAdvantages[t]),
    ];
  });
  const contrast = sample.contrastLogProbs === undefined ? [] : ["contrast"];
  const table = [["place", "token", "log P", "teacher", ...contrast, "delta", "weight", "A"], ...rows];
  return tableLines(table).map((line) => `  ${line}`);
}

/** What the colours mean; once above all heat maps. */
export function heatMapLegend({ color, clip }: HeatMapOptions): string {
  const weights = [1 - clip, 1 - clip / 2, 1, 1 + clip / 2, 1 + clip];
  const scale = weights.map((weight) => {
    const shade = shadeOf(weight, clip);
    const text = ` ${Number(weight.toPrecision(3))} `;
    return color && shade !== undefined ? paint(text, shade) : text;
  });
  const how = color ? "weight of a token:" : "{weight} follows a token whose weight is not about 1:";
  return `${how}${scale.join("")} above 1: blamed where A < 0, praised where A > 0; below 1: spared, passed over`;
}

/** A completion with every token marked by its evidence weight, then the strongest of them in numbers. */
export function heatMap(sample: SampleLine, o: HeatMapOptions): string {
  const { step, id, reward, advantage, prompt, privileged, tokenIds } = sample;
  const weights = weighted(sample).map(({ weight }) => weight);
  const facts = [
    `${visible(id)}`,
    `step ${step}`,
    `reward ${reward ?? "none"}`,
    `A ${signed(advantage)}`,
    `${tokenIds.length} tokens`,
    weights.length > 0 ? `mean weight ${mean(weights).toFixed(3)}` : "no teacher was asked",
  ];
  const lines = [facts.join("  "), `  prompt   ${oneLine(prompt, 200)}`];
  if (privileged !== null) lines.push(`  teacher  ${oneLine(privileged, 200)}`);
  return [...lines, coloured(sample, o).replace(/\n$/, ""), ...strongest(sample, o.clip)].join("\n");
}
