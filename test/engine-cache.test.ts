import {
  type Completion,
  type EnginePolicy,
  type NewModelConfig,
  RlsdError,
  type SamplingOptions,
} from "../lib/index.js";
import { native } from "../lib/native/load.js";
import { settledValue } from "../lib/policy/native-model.js";
import { ids, tinyPolicy } from "./support/small-policy.js";

/** Its blocks are larger than what else a step needs. */
const MODEL = { modelType: "qwen3", numLayers: 4, headDim: 64, maxLength: 700 } as const;
/** 4 layers of keys and values, 64 tokens, 2 heads of 64. */
const BLOCK_BYTES = 4 * 2 * 64 * 128 * 4;

const text = (length: number, key: number): Int32Array =>
  Int32Array.from({ length }, (_, j) => (key * 7 + 5 * j + ((j * j) % (key + 3))) % 37);
/** Prompts that are shorter and longer than a block of 64 tokens, and one of whole blocks. */
const PROMPTS = [70, 200, 128, 5, 64].map((length, i) => text(length, i));
/** Tokens that end some completions soon and others late. */
const OFTEN = [5, 23];

const sampling = (o: Partial<SamplingOptions> = {}): SamplingOptions => ({ maxTokens: 90, seed: 5, count: 6, ...o });
const once = async <T>(
  options: Parameters<typeof tinyPolicy>[1],
  body: (p: EnginePolicy) => Promise<T>,
  config: Partial<NewModelConfig> = {},
): Promise<T> => {
  await using policy = await tinyPolicy({ ...MODEL, ...config }, options);
  return await body(policy);
};

/** What a call under a limit gives; undefined where it had too little memory. */
async function under(
  memoryLimit: number,
  prompts: readonly Int32Array[],
  o: SamplingOptions,
  config: Partial<NewModelConfig> = {},
): Promise<Completion[][] | undefined> {
  try {
    return await once({ memoryLimit }, (policy) => policy.generate(prompts, o), config);
  } catch (error) {
    if (error instanceof RlsdError && error.code === "ERR_RLSD_OUT_OF_MEMORY") return undefined;
    throw error;
  }
}

/** The least limit, to 64 bytes, under which the call has memory enough. */
async function leastLimit(
  prompts: readonly Int32Array[],
  o: SamplingOptions,
  config: Partial<NewModelConfig> = {},
): Promise<number> {
  let [low, high] = [0, 2 ** 24];
  while (high - low > 64) {
    const middle = Math.floor((low + high) / 2);
    if ((await under(middle, prompts, o, config)) === undefined) low = middle;
    else high = middle;
  }
  return high;
}

/** Times that a completion waited between two of its tokens while others drew more than one. */
function pauses(order: readonly string[], running: number): number {
  const last = new Map<string, number>();
  let count = 0;
  for (const [i, name] of order.entries()) {
    if (i - (last.get(name) ?? i) > 2 * running) count++;
    last.set(name, i);
  }
  return count;
}

/** The most memory that a policy held while it drew, and what it had held before. */
async function peak(
  prompts: readonly Int32Array[],
  o: SamplingOptions,
  config: Partial<NewModelConfig> = {},
): Promise<number> {
  const watched = async (policy: EnginePolicy): Promise<number> => {
    await policy.generate([ids(1)], { maxTokens: 1, seed: 0 });
    const before = await policy.memoryBytes();
    const states: Promise<number>[] = [];
    const spy = jest.spyOn(native, "engineGenerate");
    const onToken = (): void => {
      const state = settledValue(native.engineState(spy.mock.calls[0]![0], -1));
      states.push(state.then(([bytes]) => bytes));
    };
    await policy.generate(prompts, { ...o, onToken });
    spy.mockRestore();
    return Math.max(...(await Promise.all(states))) - before;
  };
  return once({}, watched, config);
}

describe("whatever the memory", () => {
  let wanted: Completion[][];
  let least: number;
  beforeAll(async () => {
    wanted = await once({}, (policy) => policy.generate(PROMPTS, sampling({ stopTokenIds: OFTEN })));
    const alone = sampling({ count: 1, stopTokenIds: [] });
    least = Math.max(...(await Promise.all(PROMPTS.map((prompt) => leastLimit([prompt], alone)))));
  }, 120_000);

  test("the same tokens and log-probs are drawn, down to what one sequence needs", async () => {
    const lengths = wanted.flat().map((c) => c.tokenIds.length);
    expect(Math.min(...lengths)).toBeLessThan(10);
    expect(Math.max(...lengths)).toBeGreaterThan(40);
    for (const more of [0, 1, 2, 3, 5, 9, 30, 100]) {
      const limit = least + more * BLOCK_BYTES;
      expect([more, await under(limit, PROMPTS, sampling({ stopTokenIds: OFTEN }))]).toEqual([more, wanted]);
    }
  });

  test("many sequences need no more than the largest of them alone, and less than that is a typed error", async () => {
    const full = sampling({ stopTokenIds: [] });
    const free = await once({}, (policy) => policy.generate(PROMPTS, full));
    expect((await under(least, PROMPTS, full)) !== undefined).toBe(true);
    expect(await under(least, PROMPTS, full)).toEqual(free);
    expect(await under(least - BLOCK_BYTES, PROMPTS, full)).toBeUndefined();
    const failing = once({ memoryLimit: least - BLOCK_BYTES }, (policy) => policy.generate(PROMPTS, full));
    await expect(failing).rejects.toMatchObject({
      code: "ERR_RLSD_OUT_OF_MEMORY",
      message: expect.stringMatching(/need \d+ bytes; \d+ of the \d+ that this model may use are free/),
    });
  });

  test("a completion that was put back goes on where it was: every token is reported once, in its order", async () => {
    const full = sampling({ stopTokenIds: [], count: 4, maxTokens: 200 });
    const free = await once({}, (policy) => policy.generate(PROMPTS.slice(0, 2), full));
    const order: string[] = [];
    const seen = new Map<string, number[]>();
    const onToken = (p: number, c: number, id: number): void => {
      order.push(`${p},${c}`);
      seen.set(`${p},${c}`, [...(seen.get(`${p},${c}`) ?? []), id]);
    };
    const memoryLimit = least + 8 * BLOCK_BYTES;
    const streamed = await once({ memoryLimit }, (policy) =>
      policy.generate(PROMPTS.slice(0, 2), { ...full, onToken }),
    );
    expect(streamed).toEqual(free);
    expect(pauses(order, 8)).toBeGreaterThan(0);
    for (const [p, group] of free.entries()) {
      for (const [c, { tokenIds }] of group.entries()) expect(seen.get(`${p},${c}`)).toEqual([...tokenIds]);
    }
  });

  test("aborts while sequences are put back give everything back: the next call has the same room", async () => {
    const room = 8;
    await once({ memoryLimit: least + room * BLOCK_BYTES }, async (policy) => {
      const full = sampling({ stopTokenIds: [], count: 4, maxTokens: 200 });
      const prompts = PROMPTS.slice(0, 2);
      const first = await policy.generate(prompts, full);
      // A block that each kept would use up the room.
      for (let i = 0; i <= room; i++) {
        const controller = new AbortController();
        let tokens = 0;
        const onToken = (): void => {
          if (++tokens === 3 + 120 * i) controller.abort();
        };
        const call = policy.generate(prompts, { ...full, signal: controller.signal, onToken });
        await expect(call).rejects.toMatchObject({ name: "AbortError" });
      }
      expect(await policy.generate(prompts, full)).toEqual(first);
      expect(await policy.memoryBytes()).toBeLessThan(least);
    });
  });
});

test("a group that is larger than what runs at once, or than a pass, draws what it draws together", async () => {
  const o = sampling({ count: 21, maxTokens: 30, stopTokenIds: OFTEN });
  const wanted = await once({}, (policy) => policy.generate(PROMPTS, o));
  for (const options of [{ maxSequences: 1 }, { maxSequences: 4 }, { maxSequences: 30, batchTokens: 50 }]) {
    expect(await once(options, (policy) => policy.generate(PROMPTS, o))).toEqual(wanted);
  }
});

test.each([
  ["all keys", {}],
  ["a window within a block", { slidingWindow: { size: 40 } }],
  ["a window over blocks, in some layers", { slidingWindow: { size: 130, layers: [false, true, false, true] } }],
])("log-probs of sequences that shared blocks are those of scoring: %s", async (_, config) => {
  await using policy = await tinyPolicy({ ...MODEL, ...config });
  const prompts = [...PROMPTS, Int32Array.of(...text(150, 1).slice(0, 140), 3, 4), text(150, 1)];
  const groups = await policy.generate(prompts, sampling({ count: 5, temperature: 0.8 }));
  const requests = groups.flatMap((group, p) =>
    group.map(({ tokenIds }) => ({ prompt: prompts[p]!, completion: tokenIds })),
  );
  const scored = await policy.score(requests, { temperature: 0.8 });
  expect(scored).toEqual(groups.flat().map((c) => c.logProbs));
});

describe("memory", () => {
  const one = sampling({ count: 1, maxTokens: 1 });

  test("follows what is drawn, not what might be", async () => {
    const stopTokenIds = Array.from({ length: 18 }, (_, i) => 2 * i);
    const short = await peak([text(100, 2)], sampling({ count: 1, maxTokens: 8, stopTokenIds }));
    const long = await peak([text(100, 2)], sampling({ count: 1, maxTokens: 600, stopTokenIds }));
    expect(long).toBe(short);
  });

  test("holds a prompt once for its completions: each adds what it draws and a part of a block", async () => {
    const alone = await peak([text(330, 4)], one);
    const many = await peak([text(330, 4)], { ...one, count: 16 });
    // Beside its block a sequence has rows of activations and logits. A copy of the prompt would be 6 blocks.
    expect((many - alone) / 15).toBeGreaterThan(BLOCK_BYTES);
    expect((many - alone) / 15).toBeLessThan(1.5 * BLOCK_BYTES);
  });

  /** What is seen lies in two blocks at most. */
  const SLIDING = { modelType: "mistral", slidingWindow: { size: 32 } } as const;
  const MIXED = { slidingWindow: { size: 32, layers: [true, false, true, true] } };
  const grown = async (config: Partial<NewModelConfig>, maxTokens: number) =>
    peak([text(70, 2)], sampling({ count: 1, maxTokens, stopTokenIds: [] }), config);

  test("of layers that slide holds what can be seen: as much after 600 tokens as after 70", async () => {
    expect((await grown({}, 600)) - (await grown({}, 70))).toBe(8 * BLOCK_BYTES);
    expect((await grown(SLIDING, 600)) - (await grown(SLIDING, 70))).toBe(0);
    // A window of 200 lies in five blocks at most, of which 140 tokens fill three.
    const wide = { ...SLIDING, slidingWindow: { size: 200 } };
    expect((await grown(wide, 600)) - (await grown(wide, 70))).toBe(2 * BLOCK_BYTES);
  });

  test("cacheBytes says what drawing takes, whatever slides", async () => {
    const draws = [
      { prompts: 1, count: 1, promptTokens: 70, maxTokens: 600 },
      { prompts: 1, count: 3, promptTokens: 330, maxTokens: 8 },
      { prompts: 2, count: 3, promptTokens: 200, maxTokens: 130 },
      { prompts: 2, count: 3, promptTokens: 128, maxTokens: 300 },
    ];
    for (const config of [{}, SLIDING, { ...SLIDING, slidingWindow: { size: 200 } }, MIXED]) {
      await using policy = await tinyPolicy({ ...MODEL, ...config });
      for (const draw of draws) {
        // The last token is drawn from what was cached before it; nothing else that is held depends on how many there are.
        const { prompts, count, promptTokens, maxTokens } = draw;
        const drawn = async (most: number) =>
          peak(
            [1, 2].slice(0, prompts).map((key) => text(promptTokens, key)),
            sampling({ count, maxTokens: most, stopTokenIds: [] }),
            config,
          );
        const said = (most: number) => policy.cacheBytes({ ...draw, maxTokens: most });
        expect((await drawn(maxTokens + 1)) - (await drawn(1))).toBe(said(maxTokens) - said(0));
      }
    }
  });

  test("where some layers slide, the blocks of the others alone grow", async () => {
    expect((await grown(MIXED, 600)) - (await grown(MIXED, 70))).toBe((8 * BLOCK_BYTES) / 4);
  });

  test("what sliding layers give up is room for other sequences", async () => {
    const full = sampling({ count: 1, maxTokens: 500, stopTokenIds: [] });
    const prompts = [text(70, 1), text(70, 2), text(70, 3), text(70, 4)];
    const alone = await leastLimit([prompts[0]!], { ...full, maxTokens: 100 }, SLIDING);
    expect((await under(alone, [prompts[0]!], full, SLIDING)) !== undefined).toBe(true);
    expect(await under(alone - 64, [prompts[0]!], full, SLIDING)).toBeUndefined();
    const order: string[] = [];
    const onToken = (p: number): void => void order.push(`${p}`);
    const limit = alone + 14 * BLOCK_BYTES;
    const groups = await under(limit, prompts, { ...full, onToken }, SLIDING);
    expect(groups).toEqual(await once({}, (policy) => policy.generate(prompts, full), SLIDING));
    // All four begin, and none waits for another: nine blocks of each would be 36.
    expect(pauses(order, 4)).toBe(0);
    expect(new Set(order.slice(0, 8)).size).toBe(4);
  });

  test("holds a common beginning of prompts once", async () => {
    const begin = [...text(270, 4)];
    const alike = [1, 2, 3, 4, 5].map((key) => Int32Array.of(...begin, ...text(20, key)));
    const different = [1, 2, 3, 4, 5].map((key) => Int32Array.of(key, ...begin.slice(1), ...text(20, key)));
    const saved = (await peak(different, one)) - (await peak(alike, one));
    expect(saved).toBeGreaterThan(4 * 4 * BLOCK_BYTES * 0.9);
    const [first, second] = await once({}, async (policy) => [
      await policy.generate(alike, sampling()),
      await Promise.all(alike.map((prompt) => policy.generate([prompt], sampling({ count: 1 })))),
    ]);
    expect((first as Completion[][])[0]![0]).toEqual((second as Completion[][][])[0]![0]![0]);
  });
});
