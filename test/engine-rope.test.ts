import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createPolicy, loadPolicy } from "../lib/index.js";
import { parseConfig } from "../lib/policy/config.js";
import { inverseFrequencies, rotaryFactor } from "../lib/policy/rope.js";
import { ids, TINY, temporaryFolder } from "./support/small-policy.js";

type Json = Record<string, unknown>;
interface Case {
  readonly config: Json;
  readonly inverseFrequencies: number[];
  readonly factor: number;
}
const cases = JSON.parse(readFileSync(join(__dirname, "fixtures/models/rope.json"), "utf8")) as Case[];
const DEEPSEEK = cases[1]!.config;
const YARN = { rope_type: "yarn", rope_theta: 1e6, factor: 4, original_max_position_embeddings: 64 };

describe("positions are turned as by transformers", () => {
  test.each(cases.map((one) => [JSON.stringify(one.config.rope_scaling), one] as const))("%s", (_, one) => {
    const { rope, headDim } = parseConfig(one.config);
    const actual = inverseFrequencies(rope, headDim, 64);
    expect(actual).toHaveLength(one.inverseFrequencies.length);
    // Two units in float32's last place: the sums are rounded in another order.
    for (const [i, wanted] of one.inverseFrequencies.entries()) {
      expect(Math.abs((actual[i] as number) / wanted - 1)).toBeLessThan(2 ** -22);
    }
    expect(rotaryFactor(rope)).toBeCloseTo(one.factor, 12);
  });

  test("what is said once in the newer form and once in the older is understood alike", () => {
    const { rope_scaling: scaling, rope_theta, ...rest } = DEEPSEEK;
    const newer = parseConfig({ ...rest, rope_parameters: { ...(scaling as Json), rope_theta } });
    expect(newer).toEqual(parseConfig(DEEPSEEK));
    expect(newer.rope).toMatchObject({ type: "yarn", factor: 4, originalMaxLength: 32768, betaFast: 32, betaSlow: 1 });
  });
});

describe("yarn", () => {
  test.each<[Json, RegExp]>([
    [{ factor: undefined }, /expected a number for factor but found undefined/],
    [{ factor: 0 }, /expected a number above 0 for factor but found 0/],
    [{ attention_factor: -1 }, /expected a number above 0 for attention_factor but found -1/],
    [{ beta_fast: -3 }, /expected a number above 0 for beta_fast but found -3/],
    [{ mscale: "1" }, /expected a number for mscale/],
    [{ truncate: 1 }, /expected true or false for truncate/],
    [{ rope_theta: 1 }, /expected a rope_theta above 1 with "yarn"/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor 0.5/],
    [{ original_max_position_embeddings: 63 }, /63 here and 64 beside it: expected one of them, or both alike/],
  ])("with %j is refused by name", (change, message) => {
    const config = { ...DEEPSEEK, rope_scaling: null, original_max_position_embeddings: 64 };
    const rope = JSON.parse(JSON.stringify({ ...YARN, ...change })) as Json; // undefined: the file does not say
    expect(() => parseConfig({ ...config, rope_parameters: rope })).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_UNSUPPORTED_MODEL", message: expect.stringMatching(message) }),
    );
  });

  test("turns the layers that it is for, and those alone", async () => {
    const yarn = { type: "yarn", theta: 100, factor: 8, originalMaxLength: 12 } as const;
    const shape = { ...TINY, modelType: "gemma3_text" as const, slidingWindow: { size: 90, layers: [true, false] } };
    const logitsOf = async (change: object): Promise<Float32Array> => {
      await using policy = await createPolicy({ ...shape, ...change }, { seed: 2, deviation: 0.3 });
      return policy.logits(ids(1, 2, 3, 4, 5, 6, 7, 8));
    };
    const plain = { type: "default", theta: 100 } as const;
    const [none, full, local, both] = await Promise.all([
      logitsOf({ rope: plain, localRope: plain }),
      logitsOf({ rope: yarn, localRope: plain }),
      logitsOf({ rope: plain, localRope: yarn }),
      logitsOf({ rope: yarn, localRope: yarn }),
    ]);
    expect(new Set([none, full, local, both].map(String)).size).toBe(4);
    // Where all layers slide, only their own positions count.
    const slides = { slidingWindow: { size: 90, layers: [true, true] } };
    expect(await logitsOf({ ...slides, rope: plain, localRope: yarn })).toEqual(
      await logitsOf({ ...slides, rope: yarn, localRope: yarn }),
    );
  });

  test("of a gemma3_text cannot say truncate false, which transformers does not see there", () => {
    const config = JSON.parse(
      readFileSync(join(__dirname, "fixtures/models/gemma3-window/config.json"), "utf8"),
    ) as Json;
    const scaled = (truncate: boolean): Json => ({
      ...config,
      rope_parameters: { full_attention: { ...YARN, truncate } },
    });
    expect(parseConfig(scaled(true)).rope).toMatchObject({ type: "yarn", truncate: true });
    expect(() => parseConfig(scaled(false))).toThrow(/full_attention: truncate false is not supported: expected true/);
  });

  test.each([{}, { betaFast: 4, betaSlow: 0.5, attentionFactor: 1.5, truncate: false }])(
    "of a new model is what its files say: %j",
    async (change) => {
      const rope = { type: "yarn", theta: 100, factor: 8, originalMaxLength: 12, ...change } as const;
      await using made = await createPolicy({ ...TINY, modelType: "qwen2", rope }, { seed: 2, deviation: 0.3 });
      const attentionFactor = 0.1 * Math.log(8) + 1;
      expect(made.config.rope).toEqual({ betaFast: 32, betaSlow: 1, attentionFactor, truncate: true, ...rope });
      const folder = join(temporaryFolder(), "model");
      await made.save(folder);
      await using read = await loadPolicy(folder);
      expect(read.config).toEqual(made.config);
      expect(await read.logits(ids(1, 2, 3, 4, 5))).toEqual(await made.logits(ids(1, 2, 3, 4, 5)));
    },
  );
});
