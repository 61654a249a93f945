import * as api from "../lib/index.js";
import { grpo, type Objective, type ObjectiveOptions, policyLossSync, RlsdError, rlsd } from "../lib/index.js";
import { objectiveFields } from "./support/fields.js";

/** What every preset shares; the credit is off. */
const common = {
  ...objectiveFields(),
  importanceCorrection: "token-truncate",
  importanceMax: 3,
};

const presets: [string, (o?: ObjectiveOptions) => Objective, ObjectiveOptions][] = [
  ["grpo", api.grpo, { reduction: "sequence-mean" }],
  ["drGrpo", api.drGrpo, { reduction: "sequence-sum" }],
  ["dapo", api.dapo, { clipHigh: 0.28 }],
  ["bnpo", api.bnpo, {}],
  ["gspo", api.gspo, { objective: "gspo", clipLow: 3e-4, clipHigh: 4e-4, reduction: "sequence-mean" }],
  ["cispo", api.cispo, { objective: "cispo", clipHigh: 0.28 }],
  ["sapo", api.sapo, { objective: "sapo", reduction: "sequence-mean" }],
  ["luspo", api.luspo, { objective: "luspo", reduction: "sequence-sum" }],
  ["gmpo", api.gmpo, { objective: "gmpo", clipLow: 0.4, clipHigh: 0.4, reduction: "sequence-mean" }],
  ["rowCoefficient", api.rowCoefficient, { objective: "row-coefficient", reduction: "token-sum" }],
  ["rlsd", api.rlsd, { clipHigh: 0.28, dualClip: 3, creditMix: 0.5 }],
];

describe.each(presets)("%s()", (_, make, own) => {
  it("has its published defaults", () => {
    expect(make()).toEqual({ ...common, ...own });
  });

  it("takes any field instead of a default and is frozen", () => {
    const objective = make({ clipLow: 0.05, temperature: 0.7, klCoef: undefined });
    expect(objective).toEqual({ ...common, ...own, clipLow: 0.05, temperature: 0.7 });
    expect(Object.isFrozen(objective)).toBe(true);
  });
});

describe("rlsd on a base", () => {
  it("changes the credit and nothing else", () => {
    const base = api.gmpo({ klCoef: 0.2, normalizer: 9 });
    expect(rlsd({ evidenceClip: 0.3 }, base)).toEqual({ ...base, creditMix: 0.5, evidenceClip: 0.3 });
    expect(rlsd({}, rlsd({ creditMix: 0.1, negativeOnly: true }))).toEqual({ ...rlsd({ negativeOnly: true }) });
  });

  it("refuses an objective in place of options, as every factory does: its creditMix of 0 would win", () => {
    for (const make of [rlsd, grpo, api.rowCoefficient]) {
      expect(() => make(grpo() as never)).toThrow(/for options but received an objective.*rlsd\(\{\}, grpo\(\)\)/);
    }
  });

  it("refuses a base that no factory made", () => {
    expect(() => rlsd({}, { ...grpo() } as Objective)).toThrow(/objective made by grpo\(\), rlsd\(\)/);
    expect(() => rlsd({}, null as never)).toThrow(RlsdError);
  });
});

describe("objectives", () => {
  it.each([
    [{ clip_high: 0.28 }, "Unknown objective field clip_high. Did you mean clipHigh?"],
    [{ credtMix: 0.5 }, "Did you mean creditMix?"],
    [{ zzz: 1 }, "Unknown objective field zzz. Fields: objective, clipLow"],
    [{ __proto__: null, toString: 1 }, "Unknown objective field toString"],
    [JSON.parse('{"__proto__": 1}'), "Unknown objective field __proto__"],
    [{ objective: "ppo" }, 'for objective but received "ppo" of type string'],
    [{ clipMode: "ppo" }, 'Expected "symmetric" or "pessimistic" for clipMode'],
    [{ reduction: "mean" }, 'Expected one of "token-mean", "sequence-mean", "sequence-sum", "token-sum" for reduction'],
    [{ clipLow: -0.1 }, "of at least 0 for clipLow but received -0.1"],
    [{ clipHigh: Number.NaN }, "for clipHigh but received NaN"],
    [{ clipHigh: Number.POSITIVE_INFINITY }, "for clipHigh but received Infinity"],
    [{ clipHigh: "0.2" }, 'for clipHigh but received "0.2" of type string'],
    [{ clipHigh: null }, "for clipHigh but received null"],
    [{ dualClip: 1 }, "above 1 or null for dualClip"],
    [{ ratioBound: 0 }, "above 0 or null for ratioBound"],
    [{ normalizer: 0 }, "for normalizer"],
    [{ klCoef: -1 }, "for klCoef"],
    [{ temperature: 0 }, "for temperature"],
    [{ temperature: 1e-40 }, "of at least 1.1754943508222875e-38"],
    [{ temperature: 1e300 }, "for temperature but received 1e+300"],
    [{ logitSoftcap: 1e-46 }, "or null for logitSoftcap"],
    [{ logitSoftcap: 1e39 }, "or null for logitSoftcap"],
    [Object.create({ clipHi: 0.1 }), "Did you mean clipHigh?"],
    [{ creditMix: 1.01 }, "at most 1 for creditMix"],
    [{ evidenceClip: -0.1 }, "for evidenceClip"],
    [{ negativeOnly: 1 }, "a boolean for negativeOnly"],
    [{ importanceMin: -0.1 }, "of at least 0 or null for importanceMin"],
    [{ importanceMin: 2, importanceMax: 1 }, "at most importanceMax 1 for importanceMin but received 2"],
  ])("refuse %j, naming the field", (options, words) => {
    for (const make of [grpo, rlsd]) {
      expect(() => make(options as never)).toThrow(RlsdError);
      expect(() => make(options as never)).toThrow(words);
    }
  });

  it.each([null, 3, "rlsd"])("refuse options that are no object: %p", (options) => {
    expect(() => grpo(options as never)).toThrow(/an object of objective fields/);
  });

  it("read options that are inherited", () => {
    expect(grpo(Object.create({ clipHigh: 0.4 })).clipHigh).toBe(0.4);
  });

  it("read each option once, so that what was checked is what is used", () => {
    let reads = 0;
    const options = {
      get clipHigh() {
        reads++;
        return reads === 1 ? 0.5 : Number.NaN;
      },
    };
    expect(grpo(options).clipHigh).toBe(0.5);
  });

  it("warn when evidenceClip is 1 or more, once a value, where it is set", () => {
    const warn = jest.spyOn(process, "emitWarning").mockImplementation(() => undefined);
    const wide = rlsd({ evidenceClip: 1 });
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toMatch(/evidenceClip 1 is 1 or more/);
    rlsd({ creditMix: 0.1 }, wide);
    rlsd({ evidenceClip: 0.99 });
    rlsd({ creditMix: 0.2, evidenceClip: 1 });
    expect(warn).toHaveBeenCalledTimes(1);
    rlsd({ evidenceClip: 2 });
    expect(warn).toHaveBeenCalledTimes(2);
    warn.mockRestore();
  });

  it("are needed by every call: a hand-made one is refused", () => {
    const batch = {
      student: { logProbs: Float32Array.of(-1) },
      cuSeqlens: Int32Array.of(0, 1),
      advantages: Float32Array.of(1),
    };
    for (const fake of [{ ...grpo() }, null, undefined, "grpo", () => grpo()]) {
      expect(() => policyLossSync(batch, fake as never)).toThrow(/Expected an objective made by/);
    }
  });
});
