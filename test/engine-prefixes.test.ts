import { type Completion, type EnginePolicy, grpo, type NewModelConfig, type SamplingOptions } from "../lib/index.js";
import { GEMMA, GRANITE, ids, OLMO2, OLMO3, PHI3, tinyPolicy } from "./support/small-policy.js";

const MODEL = { numLayers: 3, headDim: 16, maxLength: 900 } as const;
const KINDS: [string, Partial<NewModelConfig>][] = [
  ["all keys", { modelType: "qwen3" }],
  ["a window within a block", { modelType: "mistral", slidingWindow: { size: 20 } }],
  [
    "a window over blocks, in some layers",
    { modelType: "qwen3", slidingWindow: { size: 150, layers: [true, false, true] } },
  ],
  ["olmo2", OLMO2],
  ["olmo3", { ...OLMO3, slidingWindow: { size: 70, layers: [true, true, false] } }],
  ["granite", GRANITE],
  ["phi3", { ...PHI3, slidingWindow: { size: 70 } }],
  ["gemma3", { ...GEMMA, slidingWindow: { size: 70, layers: [true, true, false] } }],
];

const text = (length: number, key: number): number[] =>
  Array.from({ length }, (_, j) => (key * 7 + 5 * j + ((j * j) % (key + 3))) % 37);
const sampling = (o: Partial<SamplingOptions> = {}): SamplingOptions => ({
  maxTokens: 50,
  seed: 5,
  stopTokenIds: [],
  ...o,
});
const open = (c: Partial<NewModelConfig> = {}, o: Parameters<typeof tinyPolicy>[1] = {}): Promise<EnginePolicy> =>
  tinyPolicy({ ...MODEL, ...c }, o);
const drawn = ({ tokenIds }: Completion): number[] => [...tokenIds];

/** Prompt tokens of one call that were reused, and that were computed. */
async function counted<T>(
  policy: EnginePolicy,
  body: () => Promise<T>,
): Promise<[T, reused: number, computed: number]> {
  const before = await policy.prefixUse();
  const value = await body();
  const after = await policy.prefixUse();
  return [value, after.reusedTokens - before.reusedTokens, after.computedTokens - before.computedTokens];
}

describe.each(KINDS)("%s", (_, config) => {
  /** Answers `prompts` one after another, each made of the answers before; those of a policy that keeps nothing are the same. */
  async function turns(
    next: readonly ((said: number[], answer: number[]) => number[])[],
    o: Partial<SamplingOptions> = {},
  ) {
    await using keeping = await open(config);
    await using other = await open(config);
    await keeping.keepPrefixes();
    const uses: { length: number; reused: number; computed: number }[] = [];
    let [said, answer]: [number[], number[]] = [[], []];
    for (const make of next) {
      said = make(said, answer);
      const prompt = Int32Array.from(said);
      const call = () => keeping.generate([prompt], sampling(o));
      const [groups, reused, computed] = await counted(keeping, call);
      expect(groups).toEqual(await other.generate([prompt], sampling(o)));
      uses.push({ length: said.length, reused, computed });
      answer = drawn(groups[0]![0]!);
    }
    return uses;
  }

  test("a turn computes what is new in it, and draws what it draws from nothing", async () => {
    const goOn = (said: number[], answer: number[]) => [...said, ...answer, ...text(10, answer.length)];
    const uses = await turns([() => text(100, 1), goOn, goOn, goOn, goOn]);
    expect(uses[0]).toEqual({ length: 100, reused: 0, computed: 100 });
    // The answer's last token was drawn, and never read.
    for (const use of uses.slice(1)) expect(use).toEqual({ length: use.length, reused: use.length - 11, computed: 11 });
  });

  test("a turn that a template rewrote is computed from where it differs", async () => {
    // The answer loses its first half, as one does that began with a thought.
    const without = (said: number[], answer: number[]) => [
      ...said,
      ...answer.slice(25).map((id) => (id + 1) % 37),
      3,
      4,
    ];
    const uses = await turns([() => text(301, 2), without, without, without]);
    for (const [i, { length, reused, computed }] of uses.slice(1).entries()) {
      expect(reused).toBeGreaterThanOrEqual(uses[i]!.length);
      expect(reused).toBeLessThan(uses[i]!.length + 5);
      expect(computed).toBe(length - reused);
    }
  });

  test("a prompt that was there as a whole, a shorter one, and one that parts within a block", async () => {
    for (const length of [64, 100, 128, 129, 300]) {
      const uses = await turns([
        () => text(length, 3),
        () => text(length, 3),
        () => text(length, 3).slice(0, length - 10),
        () => [...text(length, 3).slice(0, length - 7), 1, 2, 3],
      ]);
      expect(uses[1]).toEqual({ length, reused: length - 1, computed: 1 });
      for (const { length: own, reused, computed } of uses.slice(2)) expect(reused + computed).toBe(own);
      expect(uses[2]!.reused).toBe(length - 11);
      expect(uses[3]!.reused).toBeGreaterThanOrEqual(length - 7);
    }
  });

  test("many prompts and completions at once, the same again, and cut into passes", async () => {
    const begin = text(150, 4);
    const first = [1, 2, 3].map((key) => Int32Array.of(...begin, ...text(40, key)));
    const second = [1, 2, 5, 2].map((key) => Int32Array.of(...begin, ...text(40, key), ...text(100, key + 1)));
    const o = sampling({ count: 3, maxTokens: 30 });
    await using other = await open(config);
    const wanted = [await other.generate(first, o), await other.generate(second, o)];
    for (const options of [{}, { batchTokens: 30 }, { maxSequences: 2 }, { threads: 1 }]) {
      await using policy = await open(config, options);
      await policy.keepPrefixes(2 ** 30);
      expect(await policy.generate(first, o)).toEqual(wanted[0]);
      const [again, reused] = await counted(policy, () => policy.generate(second, o));
      expect(again).toEqual(wanted[1]);
      expect(reused).toBeGreaterThan(2 * 150);
      expect(await policy.generate(first, o)).toEqual(wanted[0]);
    }
  });
});

describe("goes", () => {
  const prompt = Int32Array.from(text(200, 1));
  const batch = { sequences: [{ prompt, completion: ids(1, 2, 3) }], advantages: Float32Array.of(1) };
  const name = "model.norm.weight";

  test.each<[string, (policy: EnginePolicy, other: EnginePolicy) => Promise<unknown>]>([
    [
      "with a step",
      async (policy) => {
        await policy.accumulate(batch, grpo());
        await policy.step({ learningRate: 0.05 });
      },
    ],
    ["with a parameter that is written", (policy) => policy.writeParameter(name, new Float32Array(24).fill(0.5))],
    ["with copyFrom", (policy, other) => policy.copyFrom(other)],
  ])("%s: what is drawn then is of the new weights", async (_, change) => {
    await using policy = await open();
    await using plain = await open();
    await using other = await open({}, { seed: 12 });
    await policy.keepPrefixes();
    const old = await policy.generate([prompt], sampling());
    expect((await policy.prefixUse()).bytes).toBeGreaterThan(0);
    await change(policy, other);
    await change(plain, other);
    expect(await policy.prefixUse()).toMatchObject({ bytes: 0, sequences: 0 });
    const now = await policy.generate([prompt], sampling());
    expect(now).toEqual(await plain.generate([prompt], sampling()));
    expect(now).not.toEqual(old);
  });

  test("with adapters that are trained, and theirs are not those of the model under them", async () => {
    await using model = await open();
    await model.keepPrefixes();
    await using policy = await model.withLora({ rank: 4, seed: 3 });
    await policy.keepPrefixes();
    const old = await policy.generate([prompt], sampling());
    expect((await model.prefixUse()).bytes).toBe(0);
    await policy.accumulate(batch, grpo());
    await policy.step({ learningRate: 0.5 });
    const [now, reused] = await counted(policy, () => policy.generate([prompt], sampling()));
    expect(reused).toBe(0);
    expect(now).not.toEqual(old);
    const merged = await policy.merge();
    expect(drawn((await merged.generate([prompt], sampling({ maxTokens: 3 })))[0]![0]!)).toEqual(
      drawn(now[0]![0]!).slice(0, 3),
    );
    await merged.dispose();
  });

  test("where another call needs the memory, oldest first, and no call fails for it", async () => {
    const block = 3 * 2 * 64 * 2 * 16 * 4;
    const peak = async (memoryLimit?: number, kept = 0, keys = [1, 2, 3]) => {
      await using policy = await open({}, { memoryLimit });
      await policy.keepPrefixes(kept);
      const results = [];
      for (const key of keys) {
        results.push(await policy.generate([Int32Array.from(text(400, key))], sampling()));
        results.push(await policy.score([{ prompt: Int32Array.from(text(700, key)), completion: ids(1, 2) }]));
      }
      await policy.accumulate(batch, grpo());
      results.push(await policy.step({ learningRate: 0.01 }));
      return { results, bytes: await policy.memoryBytes() };
    };
    const { results, bytes } = await peak();
    expect((await peak(undefined, 2 ** 30)).results).toEqual(results);
    let low = 0;
    for (let high = 2 * bytes; high - low > 64; ) {
      const middle = Math.floor((low + high) / 2);
      // Where nothing is kept, one after the other need no more than one of them.
      const fits = await peak(middle, 0, [1]).then(
        () => true,
        () => false,
      );
      if (fits) high = middle;
      else low = middle;
    }
    // Within less than a block of what is needed without anything kept.
    expect((await peak(low + block, 2 ** 30)).results).toEqual(results);
    expect((await peak(low + 64, 2 ** 30)).results).toEqual(results);
  });

  test("with the limit: what was not used for longest first", async () => {
    await using policy = await open();
    const block = 3 * 2 * 64 * 2 * 16 * 4;
    // 200 + 9 tokens lie in four blocks.
    await policy.keepPrefixes(9 * block);
    const o = sampling({ maxTokens: 10 });
    const ask = async (key: number) =>
      (await counted(policy, () => policy.generate([Int32Array.from(text(200, key))], o)))[1];
    expect([await ask(1), await ask(2)]).toEqual([0, 0]);
    expect(await policy.prefixUse()).toMatchObject({ bytes: 8 * block, sequences: 2 });
    expect(await ask(1)).toBe(199);
    expect(await ask(3)).toBe(0); // which the second gave way to
    expect([await ask(1), await ask(2)]).toEqual([199, 0]);
    const held = await policy.memoryBytes();
    const { bytes } = await policy.prefixUse();
    await policy.keepPrefixes(0);
    expect(await policy.prefixUse()).toMatchObject({ bytes: 0, sequences: 0 });
    expect(held - (await policy.memoryBytes())).toBe(bytes);
    expect([await ask(1), await ask(1)]).toEqual([0, 0]);
  });

  test("with the policy, and a snapshot has none of it", async () => {
    const policy = await open();
    await policy.keepPrefixes();
    await policy.generate([prompt], sampling());
    await using copy = await policy.snapshot();
    expect(await copy.prefixUse()).toEqual({ bytes: 0, sequences: 0, reusedTokens: 0, computedTokens: 0 });
    await policy.dispose();
  });
});

test("what an aborted call had drawn stays, also where it was aborted while it read its prompt", async () => {
  await using policy = await open();
  await using other = await open();
  await policy.keepPrefixes();
  const prompt = Int32Array.from(text(300, 1));
  const controller = new AbortController();
  const seen: number[] = [];
  const onToken = (_p: number, _c: number, id: number) => {
    seen.push(id);
    if (seen.length === 20) controller.abort();
  };
  const o = sampling({ maxTokens: 200 });
  await expect(policy.generate([prompt], { ...o, signal: controller.signal, onToken })).rejects.toThrow(/abort/i);
  const next = Int32Array.of(...prompt, ...seen, 7);
  const [answer, reused] = await counted(policy, () => policy.generate([next], o));
  expect(reused).toBeGreaterThanOrEqual(300 + 19);
  expect(answer).toEqual(await other.generate([next], o));
  // Aborts at any time leave nothing that is half computed.
  for (let wait = 0; wait < 12; wait++) {
    const longer = Int32Array.from(text(800, wait + 2));
    const late = new AbortController();
    const call = policy.generate([longer], { ...o, maxTokens: 50, signal: late.signal });
    const aborted = call.then(
      () => false,
      () => true,
    );
    await new Promise((resolve) => setTimeout(resolve, wait));
    late.abort();
    await aborted;
    const again = sampling({ maxTokens: 5 });
    expect(await policy.generate([longer], again)).toEqual(await other.generate([longer], again));
  }
});

test("a limit that is none is a typed error", async () => {
  await using policy = await open();
  for (const wrong of [-1, Number.NaN, Number.POSITIVE_INFINITY, "all"]) {
    await expect(policy.keepPrefixes(wrong as number)).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringContaining("maxBytes"),
    });
  }
});
