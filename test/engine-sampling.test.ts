import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Completion, createPolicy, type EnginePolicy, grpo, type SamplingOptions } from "../lib/index.js";
import { ids, KINDS, prompts, TINY, tinyPolicy } from "./support/small-policy.js";

let policy: EnginePolicy;
beforeAll(async () => {
  policy = await tinyPolicy();
});
afterAll(() => policy.dispose());

const sampling = (o: Partial<SamplingOptions> = {}): SamplingOptions => ({ maxTokens: 12, seed: 5, count: 3, ...o });
const flat = (completions: Completion[][]): Completion[] => completions.flat();

describe.each(KINDS)("what is drawn depends on the seed and the sequence alone: %s", (_, config) => {
  let policy: EnginePolicy;
  beforeAll(async () => {
    policy = await tinyPolicy(config);
  });
  afterAll(() => policy.dispose());

  test("not on how many are in the cache at once, on the pass sizes or on the threads", async () => {
    const wanted = await policy.generate(prompts(7), sampling());
    expect(new Set(flat(wanted).map((c) => c.tokenIds.join())).size).toBeGreaterThan(10);
    for (const options of [{ maxSequences: 1 }, { maxSequences: 4 }, { batchTokens: 3 }, { threads: 1 }]) {
      const other = await tinyPolicy(config, options);
      expect(await other.generate(prompts(7), sampling())).toEqual(wanted);
      await other.dispose();
    }
  });

  test.each([{}, { temperature: 0.7 }, { temperature: 0 }, { topK: 3, topP: 0.8 }])(
    "log-probs reported with %j are those of scoring, bit for bit, whatever the batch",
    async (o) => {
      const batch = prompts(5);
      const completions = await policy.generate(batch, sampling(o));
      const requests = completions.flatMap((group, p) =>
        group.map((c) => ({ prompt: batch[p] as Int32Array, completion: c.tokenIds })),
      );
      const temperature = o.temperature === 0 ? 1 : (o.temperature ?? 1);
      const together = await policy.score(requests, { temperature });
      expect(together).toEqual(flat(completions).map((c) => c.logProbs));
      const [alone] = await policy.score([requests[7]!], { temperature });
      expect(alone).toEqual(together[7]);
      const few = await tinyPolicy(config, { batchTokens: 5, threads: 1 });
      expect(await few.score(requests, { temperature })).toEqual(together);
      await few.dispose();
    },
  );

  test("also where completions are longer than blocks of keys", async () => {
    const long = await tinyPolicy({ ...config, maxLength: 160 });
    const completions = flat(await long.generate(prompts(2), sampling({ maxTokens: 140, count: 1 })));
    const requests = completions.map((c, p) => ({ prompt: prompts(2)[p] as Int32Array, completion: c.tokenIds }));
    expect(await long.score(requests)).toEqual(completions.map((c) => c.logProbs));
    await long.dispose();
  });

  test("a prompt alone gives what it gives among others", async () => {
    const wanted = await policy.generate(prompts(4), sampling());
    const alone = await policy.generate(prompts(1), sampling());
    expect(alone[0]).toEqual(wanted[0]);
  });

  test("each place of each completion draws its own random number", async () => {
    const flatModel = await createPolicy({ ...TINY, vocabSize: 600 }, { deviation: 0 });
    const completions = flat(await flatModel.generate(prompts(2), sampling({ maxTokens: 50, count: 4 })));
    const all = completions.flatMap((c) => [...c.tokenIds]);
    // 400 uniform draws of 600 leave about 600 (1 - exp(-2/3)) = 292 distinct ones.
    expect(Math.abs(new Set(all).size - 292)).toBeLessThan(40);
    for (const { tokenIds } of completions) expect(new Set(tokenIds).size).toBeGreaterThan(40);
    await flatModel.dispose();
  });

  test("another seed gives other tokens, also beyond 32 bits", async () => {
    const a = flat(await policy.generate(prompts(2), sampling({ seed: 1 })));
    const b = flat(await policy.generate(prompts(2), sampling({ seed: 2 })));
    const c = flat(await policy.generate(prompts(2), sampling({ seed: 2 ** 40 + 1 })));
    expect(a.map((x) => x.tokenIds)).not.toEqual(b.map((x) => x.tokenIds));
    expect(a.map((x) => x.tokenIds)).not.toEqual(c.map((x) => x.tokenIds));
  });
});

describe("log-probs", () => {
  test("sum to 1 over the vocabulary", async () => {
    const prompt = ids(3, 1, 4);
    const all = Array.from({ length: 37 }, (_, v) => ({ prompt, completion: ids(v) }));
    const scores = await policy.score(all, { temperature: 1.7 });
    expect(scores.reduce((total, [p]) => total + Math.exp(p!), 0)).toBeCloseTo(1, 5);
  });
});

/** How often each token follows the prompt in many draws. */
async function frequencies(o: Partial<SamplingOptions>, draws = 4000): Promise<{ counts: number[]; p: number[] }> {
  const prompt = ids(3, 1, 4);
  const [completions] = await policy.generate([prompt], sampling({ maxTokens: 1, count: draws, ...o }));
  const counts = new Array<number>(37).fill(0);
  for (const { tokenIds } of completions!) counts[tokenIds[0]!]! += 1;
  const logits = (await policy.logits(prompt)).slice(-37);
  const weights = Array.from(logits, (z) => Math.exp(z / (o.temperature ?? 1)));
  const total = weights.reduce((a, b) => a + b, 0);
  return { counts, p: weights.map((w) => w / total) };
}

/** The tokens that survive truncation, by definition. */
function kept(p: number[], { topK = 0, topP = 1, minP = 0 }): Set<number> {
  let order = p.map((_, v) => v).sort((a, b) => p[b]! - p[a]! || a - b);
  if (topK > 0) order = order.slice(0, topK);
  const mass = order.reduce((total, v) => total + p[v]!, 0);
  let before = 0;
  const head: number[] = [];
  for (const v of order) {
    if (head.length > 0 && before >= topP * mass) break;
    if (p[v]! < minP * p[order[0]!]!) break;
    head.push(v);
    before += p[v]!;
  }
  return new Set(head);
}

describe("truncation", () => {
  test.each([
    {},
    { temperature: 0.5 },
    { topK: 5 },
    { topP: 0.6 },
    { minP: 0.2 },
    { topK: 12, topP: 0.9, minP: 0.05 },
    { topK: 1 },
    { topK: 1000, topP: 1, minP: 0 },
  ])("%j draws from the kept tokens in proportion to their probabilities", async (o) => {
    const { counts, p } = await frequencies(o);
    const survivors = kept(p, o);
    const mass = [...survivors].reduce((total, v) => total + p[v]!, 0);
    for (const [v, count] of counts.entries()) {
      const expected = survivors.has(v) ? (4000 * p[v]!) / mass : 0;
      // Six standard deviations of a binomial count.
      expect(Math.abs(count - expected)).toBeLessThanOrEqual(6 * Math.sqrt(expected) + (expected > 0 ? 1 : 0));
    }
  });

  test("greedy takes the smallest id among equals", async () => {
    const flatModel = await createPolicy({ ...TINY, vocabSize: 600 }, { deviation: 0 });
    const [[c]] = (await flatModel.generate([ids(9)], sampling({ temperature: 0, count: 1, maxTokens: 3 }))) as [
      [Completion],
    ];
    expect([...c.tokenIds]).toEqual([0, 0, 0]);
    expect(c.logProbs[0]).toBeCloseTo(-Math.log(600), 5);
    await flatModel.dispose();
  });
});

describe("endings", () => {
  test("a stop token ends a completion and is its last token; the longest has maxTokens", async () => {
    const completions = flat(await policy.generate(prompts(6), sampling({ stopTokenIds: [2, 9], count: 4 })));
    expect(new Set(completions.map((c) => c.finish))).toEqual(new Set(["stop", "length"]));
    for (const { tokenIds, logProbs, finish } of completions) {
      expect(logProbs).toHaveLength(tokenIds.length);
      const at = tokenIds.findIndex((id) => id === 2 || id === 9);
      expect(at).toBe(finish === "stop" ? tokenIds.length - 1 : -1);
      if (finish === "length") expect(tokenIds).toHaveLength(12);
    }
  });

  test("each prompt may have a limit of its own, and its tokens are those that it has anyhow", async () => {
    await using policy = await tinyPolicy();
    const o = sampling({ stopTokenIds: [], count: 2 });
    const whole = await policy.generate(prompts(4), o);
    const limits = [3, 12, 1, 7];
    const drawn = await policy.generate(prompts(4), { ...o, maxTokens: limits });
    for (const [i, group] of drawn.entries()) {
      expect(group.map(({ tokenIds, finish }) => [[...tokenIds], finish])).toEqual(
        whole[i]!.map(({ tokenIds }) => [[...tokenIds.slice(0, limits[i])], "length"]),
      );
    }
    for (const [maxTokens, message] of [
      [[3, 4], /4 numbers, one a prompt, for maxTokens/],
      [[1, 2, 0, 4], /at least 1 for maxTokens\[2\]/],
    ] as const) {
      await expect(policy.generate(prompts(4), { ...o, maxTokens })).rejects.toThrow(message);
    }
    await expect(policy.generate(prompts(2), { ...o, maxTokens: [4, 96] })).rejects.toMatchObject({
      code: "ERR_RLSD_TOO_LONG",
      message: expect.stringMatching(/^prompts\[1\]/),
    });
  });

  test("a prompt with a seed of its own is answered alike, whatever prompts share the call", async () => {
    await using policy = await tinyPolicy();
    const o = sampling({ count: 3 });
    const seeds = [7, 2 ** 53 - 1, 7, 0];
    const together = await policy.generate(prompts(4), { ...o, seed: seeds });
    for (const [i, seed] of seeds.entries()) {
      const [alone] = await policy.generate([prompts(4)[i]!], { ...o, seed: [seed] });
      expect(alone).toEqual(together[i]);
      expect(await policy.generate([prompts(4)[i]!], { ...o, seed })).toEqual([alone]);
    }
    const [same] = await policy.generate([prompts(1)[0]!, prompts(1)[0]!], { ...o, seed: [7, 8] });
    expect(same).toEqual(together[0]);
    const texts = new Set(flat(together).map(({ tokenIds }) => tokenIds.join()));
    expect(texts.size).toBe(12);
    for (const [seed, message] of [
      [[3, 4], /4 numbers, one a prompt, for seed/],
      [[1, 2, -1, 4], /at least 0 for seed\[2\]/],
      [[1, 2, 3, 2 ** 53], /a whole number of at least 0 for seed\[3\]/],
    ] as const) {
      await expect(policy.generate(prompts(4), { ...o, seed })).rejects.toThrow(message);
    }
  });

  test("the model's own end tokens are the default", async () => {
    const ending = await tinyPolicy({ endTokenIds: [2, 9] });
    const wanted = await policy.generate(prompts(6), sampling({ stopTokenIds: [2, 9] }));
    expect(await ending.generate(prompts(6), sampling())).toEqual(wanted);
    await ending.dispose();
  });

  test("a completion may fill the model to its longest sequence, and not one token more", async () => {
    const short = await tinyPolicy({ maxLength: 16 });
    const prompt = ids(1, 2, 3, 4);
    const [[c]] = (await short.generate([prompt], sampling({ count: 1, maxTokens: 12 }))) as [[Completion]];
    expect(c.tokenIds).toHaveLength(12);
    await expect(short.generate([prompt], sampling({ maxTokens: 13 }))).rejects.toMatchObject({
      code: "ERR_RLSD_TOO_LONG",
      message: expect.stringContaining("prompts[0] has 17 tokens"),
    });
    await short.dispose();
  });
});

describe("with a tokenizer", () => {
  const folder = join(__dirname, "fixtures/models/tokenizer-bpe");
  const files = { "tokenizer.json": readFileSync(join(folder, "tokenizer.json")) };
  let speaking: EnginePolicy;
  beforeAll(async () => {
    speaking = await tinyPolicy({ vocabSize: 359 }, { files });
  });
  afterAll(() => speaking.dispose());

  test("a stop string ends a completion with the token that completes it, also across tokens", async () => {
    const o = sampling({ count: 8, maxTokens: 20 });
    const free = flat(await speaking.generate(prompts(3, 359), o));
    const text = free.map((c) => speaking.tokenizer!.decode(c.tokenIds));
    // Text over the seam of two whole pieces, without the mark of broken characters.
    const seams = free.flatMap((c) => {
      const pieces = speaking.tokenizer!.pieces(c.tokenIds);
      return pieces.slice(4, 15).map((piece, i) => piece.slice(-1) + (pieces[i + 5] ?? "").slice(0, 1));
    });
    const stop = seams.find((seam) => /^[ -~]{2}$/.test(seam))!;
    expect(stop).toHaveLength(2);
    const stopStrings = [stop, "\u0000never\u0000"];
    const cut = flat(await speaking.generate(prompts(3, 359), { ...o, stopStrings }));
    expect(cut.some((c) => c.finish === "stop")).toBe(true);
    for (const [i, c] of cut.entries()) {
      expect(free[i]!.tokenIds.slice(0, c.tokenIds.length)).toEqual(c.tokenIds);
      expect(c.finish).toBe(text[i]!.includes(stop) ? "stop" : "length");
      const shown = speaking.tokenizer!.decode(c.tokenIds);
      const earlier = speaking.tokenizer!.decode(c.tokenIds.slice(0, -1));
      if (c.finish === "stop") expect([shown.includes(stop), earlier.includes(stop)]).toEqual([true, false]);
      else expect(c.tokenIds).toHaveLength(20);
    }
  });

  test("stop strings without a tokenizer are refused", async () => {
    const call = policy.generate(prompts(1), sampling({ stopStrings: ["x"] }));
    await expect(call).rejects.toMatchObject({ code: "ERR_RLSD_TOKENIZER" });
  });
});

describe("streaming and abort", () => {
  test("onToken sees every token in the order of each completion, and changes nothing", async () => {
    const seen = new Map<string, number[]>();
    const onToken = (p: number, c: number, id: number, logProb: number): void => {
      expect(logProb).toBeLessThanOrEqual(0);
      seen.set(`${p},${c}`, [...(seen.get(`${p},${c}`) ?? []), id]);
    };
    const streamed = await policy.generate(prompts(3), sampling({ onToken }));
    expect(streamed).toEqual(await policy.generate(prompts(3), sampling()));
    for (const [p, group] of streamed.entries()) {
      for (const [c, { tokenIds }] of group.entries()) expect(seen.get(`${p},${c}`)).toEqual([...tokenIds]);
    }
  });

  test("onCompletion sees every completion once, as it is returned, and the shorter ones first", async () => {
    const seen: [number, number, Completion][] = [];
    const onCompletion = (p: number, c: number, drawn: Completion): void => void seen.push([p, c, drawn]);
    const stopTokenIds = [1, 2, 3, 4];
    const streamed = await policy.generate(prompts(3), sampling({ stopTokenIds, onCompletion }));
    expect(streamed).toEqual(await policy.generate(prompts(3), sampling({ stopTokenIds })));
    expect(seen).toHaveLength(streamed.flat().length);
    for (const [p, c, drawn] of seen) expect(drawn).toEqual(streamed[p]![c]);
    const finishes = streamed.flat().map(({ finish }) => finish);
    expect(new Set(finishes)).toEqual(new Set(["stop", "length"]));
    const lengths = seen.map(([, , { tokenIds }]) => tokenIds.length);
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
  });

  test("an error in onToken ends the call with it, and the policy still works", async () => {
    const failing = policy.generate(prompts(2), {
      ...sampling(),
      onToken: () => {
        throw new Error("not today");
      },
    });
    await expect(failing).rejects.toThrow("not today");
    expect(await policy.generate(prompts(1), sampling())).toHaveLength(1);
  });

  test("an abort during a call rejects with the signal's reason and gives the cache back", async () => {
    const before = await policy.memoryBytes();
    const controller = new AbortController();
    const reason = new Error("enough");
    let tokens = 0;
    const call = policy.generate(prompts(4), {
      ...sampling({ maxTokens: 80 }),
      signal: controller.signal,
      onToken: () => {
        if (++tokens === 20) controller.abort(reason);
      },
    });
    await expect(call).rejects.toBe(reason);
    expect(await policy.memoryBytes()).toBe(before);
  });

  test("an abort reaches a call that runs on the native thread", async () => {
    const big = await createPolicy({ ...TINY, hiddenSize: 64, numLayers: 6, numHeads: 4, maxLength: 4000 });
    const controller = new AbortController();
    const call = big.generate(prompts(40), sampling({ maxTokens: 3900, count: 4, signal: controller.signal }));
    const started = performance.now();
    setTimeout(() => controller.abort(), 50);
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
    expect(performance.now() - started).toBeLessThan(20_000);
    await big.dispose();
  });

  test("an aborted signal starts nothing", async () => {
    const signal = AbortSignal.abort();
    await expect(policy.generate(prompts(1), sampling({ signal }))).rejects.toMatchObject({ name: "AbortError" });
    await expect(policy.score([{ prompt: ids(1), completion: ids(2) }], { signal })).rejects.toMatchObject({
      name: "AbortError",
    });
  });
});

test("weights that are not finite end every call with a typed error", async () => {
  const broken = await tinyPolicy();
  await broken.writeParameter("model.norm.weight", new Float32Array(24).fill(Number.NaN));
  const error = { code: "ERR_RLSD_NON_FINITE" };
  await expect(broken.generate(prompts(2), sampling())).rejects.toMatchObject(error);
  await expect(broken.generate(prompts(2), sampling({ topK: 3 }))).rejects.toMatchObject(error);
  await expect(broken.score([{ prompt: ids(1), completion: ids(2) }])).rejects.toMatchObject(error);
  const batch = { sequences: [{ prompt: ids(1), completion: ids(2) }], advantages: Float32Array.of(1) };
  await expect(broken.accumulate(batch, grpo())).rejects.toMatchObject(error);
  const { stats } = await broken.accumulate(batch, grpo({ nonFinite: "skip" }));
  expect([stats.nonFiniteRows, (await broken.step({ learningRate: 1 })).skipped]).toEqual([1, true]);
  await broken.dispose();
});

describe("refused before anything runs", () => {
  test.each([
    [{ maxTokens: 0 }, /at least 1 for maxTokens but received 0/],
    [{ temperature: -1 }, /temperature/],
    [{ topP: 0 }, /above 0 and at most 1 for topP|at most 1 and above 0|topP/],
    [{ minP: 2 }, /minP/],
    [{ topK: 1.5 }, /topK/],
    [{ seed: -1 }, /seed/],
    [{ count: 0 }, /count/],
    [{ stopTokenIds: [37] }, /stopTokenIds/],
    [{ stopStrings: [""] }, /stopStrings/],
    [{ maxtokens: 3 }, /Unknown field options.maxtokens. Did you mean maxTokens\?/],
  ])("%j", async (o, message) => {
    const call = policy.generate(prompts(1), sampling(o as Partial<SamplingOptions>));
    await expect(call).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
  });

  test("ids out of range and prompts without a token, naming the place", async () => {
    await expect(policy.generate([ids(1), ids(2, 37)], sampling())).rejects.toThrow(
      "Expected an id in 0 ... 36 for prompts[1][1] but received 37.",
    );
    await expect(policy.generate([ids()], sampling())).rejects.toThrow(/at least one token for prompts\[0\]/);
    await expect(policy.score([{ prompt: ids(1), completion: ids(-1) }])).rejects.toThrow(
      /requests\[0\].completion\[0\]/,
    );
    await expect(policy.score([{ prompt: ids(), completion: ids(1) }])).rejects.toThrow(/requests\[0\].prompt/);
  });

  test("ids are what they are when the call is made, whatever they say of themselves and become", async () => {
    const expected = await policy.score([{ prompt: ids(1), completion: ids(1, 2) }]);
    class Long extends Int32Array {
      override get length(): number {
        return 1e6;
      }
    }
    const bare = Object.setPrototypeOf(ids(1), null) as Int32Array;
    expect(await policy.score([{ prompt: bare, completion: new Long([1, 2]) }])).toEqual(expected);
    let reads = 0;
    const request = {
      prompt: ids(1),
      get completion() {
        return [ids(1, 2), ids(1, 2, 3, 4)][reads++]!;
      },
    };
    expect(await policy.score([request])).toEqual(expected);
    const gone = ids(1, 2);
    structuredClone(gone.buffer, { transfer: [gone.buffer as ArrayBuffer] });
    await expect(policy.score([{ prompt: gone, completion: ids(1) }])).rejects.toThrow(/at least one token/);
    const count = (await policy.readParameter("model.norm.weight")).length;
    const short = Object.defineProperty(new Float32Array(1), "length", { value: count });
    await expect(policy.writeParameter("model.norm.weight", short)).rejects.toThrow(
      `Expected a Float32Array of ${count} for values but received Float32Array(1).`,
    );
  });

  test("nothing to do is no error", async () => {
    expect(await policy.generate([], sampling())).toEqual([]);
    expect(await policy.score([])).toEqual([]);
    expect(await policy.score([{ prompt: ids(1), completion: ids() }])).toEqual([new Float32Array(0)]);
  });
});
