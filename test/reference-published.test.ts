import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ObjectiveFields } from "../lib/objectives/objective.js";
import { type PolicyLossReference, policyLossReference } from "../lib/reference/policy-loss.js";
import { objectiveFields } from "./support/fields.js";
import { relativeError } from "./support/vectors.js";

interface PublishedCase {
  readonly name: string;
  readonly fields: Partial<ObjectiveFields>;
  readonly inputs: {
    readonly mask: number[];
    readonly logProbs: number[];
    readonly oldLogProbs: number[];
    readonly refLogProbs?: number[];
    readonly samplerLogProbs?: number[];
    readonly advantages: number[];
  };
  readonly loss: number;
  readonly dLogProbs: number[];
}

interface PublishedFile {
  readonly shape: [number, number];
  readonly cases: PublishedCase[];
}

const load = (file: string): PublishedFile =>
  JSON.parse(readFileSync(join(__dirname, "fixtures/published", file), "utf8")) as PublishedFile;

function run([sequences, length]: [number, number], { fields, inputs }: PublishedCase): PolicyLossReference {
  const { mask, logProbs, ...rest } = inputs;
  const cuSeqlens = Int32Array.from({ length: sequences + 1 }, (_, b) => b * length);
  const tokenIds = new Int32Array(sequences * length);
  const batch = { student: { logProbs }, tokenIds, cuSeqlens, completionMask: mask, ...rest };
  return policyLossReference(batch, objectiveFields(fields));
}

// verl adds 1e-8 to the length of each sequence, GMPO once in the exponent and once in the mean advantage.
describe.each([
  ["trl.json", 1e-12],
  ["verl.json", 3e-8],
] as const)("the reference against the published %s", (file, tolerance) => {
  const { shape, cases } = load(file);

  it.each(cases.map((published) => [published.name, published] as const))("equals %s", (_, published) => {
    const got = run(shape, published);
    expect(relativeError([got.loss], [published.loss])).toBeLessThan(tolerance);
    expect(relativeError(got.gradient.logProbs, published.dLogProbs)).toBeLessThan(tolerance);
  });
});

describe("the published cases", () => {
  const { shape, cases } = load("trl.json");
  const stats = cases.map((published) => run(shape, published).stats);

  it("reach both clips", () => {
    expect(stats.some(({ ratioClippedHigh = 0 }) => ratioClippedHigh > 0.1)).toBe(true);
    expect(stats.some(({ ratioClippedLow = 0 }) => ratioClippedLow > 0.1)).toBe(true);
  });

  it("tell the options apart: each one left out misses some case", () => {
    const neutral = objectiveFields();
    const options = [
      "ratioBound",
      "klCoef",
      "klImportanceCorrection",
      "importanceCorrection",
      "importanceMax",
    ] as const;
    for (const option of options) {
      const missed = cases.some((published) => {
        const without = { ...published, fields: { ...published.fields, [option]: neutral[option] } };
        return relativeError(run(shape, without).gradient.logProbs, published.dLogProbs) > 1e-3;
      });
      expect([option, missed]).toEqual([option, true]);
    }
  });
});
