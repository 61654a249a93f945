import { type PolicyLossReference, policyLossReference } from "../lib/reference/policy-loss.js";
import { loadPublished, type PublishedCase, presetOf, presets } from "./support/published.js";
import { relativeError } from "./support/vectors.js";

function run([sequences, length]: [number, number], published: PublishedCase): PolicyLossReference {
  const { inputs } = published;
  const { mask, logProbs, ...rest } = inputs;
  const cuSeqlens = Int32Array.from({ length: sequences + 1 }, (_, b) => b * length);
  const tokenIds = new Int32Array(sequences * length);
  const batch = { student: { logProbs }, tokenIds, cuSeqlens, completionMask: mask, ...rest };
  return policyLossReference(batch, presetOf(published));
}

// verl adds 1e-8 to the length of each sequence, GMPO once in the exponent and once in the mean advantage.
describe.each([
  ["trl.json", 1e-12],
  ["verl.json", 3e-8],
] as const)("the presets against the published %s", (file, tolerance) => {
  const { shape, cases } = loadPublished(file);

  it.each(cases.map((published) => [published.name, published] as const))("equals %s", (_, published) => {
    const got = run(shape, published);
    expect(relativeError([got.loss], [published.loss])).toBeLessThan(tolerance);
    expect(relativeError(got.gradient.logProbs, published.dLogProbs)).toBeLessThan(tolerance);
  });
});

describe("the published cases", () => {
  const { shape, cases } = loadPublished("trl.json");
  const stats = cases.map((published) => run(shape, published).stats);

  it("reach both clips", () => {
    expect(stats.some(({ ratioClippedHigh = 0 }) => ratioClippedHigh > 0.1)).toBe(true);
    expect(stats.some(({ ratioClippedLow = 0 }) => ratioClippedLow > 0.1)).toBe(true);
  });

  it("take the clips that the presets have by themselves", () => {
    for (const { name, fields } of [...cases, ...loadPublished("verl.json").cases]) {
      const [preset, variant] = name.split(" ");
      // TRL gives luspo its general default of 0.2; the case has one that binds on a sequence's ratio.
      if (variant !== "plain" || preset === "luspo") continue;
      const { clipLow, clipHigh } = presets[preset as keyof typeof presets]();
      expect([preset, clipLow, clipHigh]).toEqual([preset, fields.clipLow, fields.clipHigh]);
    }
  });

  it("tell the options apart: each one left out misses some case", () => {
    const neutral = {
      ratioBound: null,
      klCoef: 0,
      klImportanceCorrection: false,
      importanceCorrection: "none",
      importanceMax: null,
    } as const;
    for (const option of Object.keys(neutral) as (keyof typeof neutral)[]) {
      const missed = cases.some((published) => {
        const without = { ...published, fields: { ...published.fields, [option]: neutral[option] } };
        return relativeError(run(shape, without).gradient.logProbs, published.dLogProbs) > 1e-3;
      });
      expect([option, missed]).toEqual([option, true]);
    }
  });
});
