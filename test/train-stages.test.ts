import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ObjectiveOptions, rlsd } from "../lib/objectives/presets.js";
import type { Policy, TrainBatch } from "../lib/policy/policy.js";
import { createTokenizer } from "../lib/policy/tokenizer.js";
import { createChatTemplate } from "../lib/prompt/chat-template.js";
import { createPrivilegedBlock, privilegedPrompt } from "../lib/prompt/privileged.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { spanMask, spansIn } from "../lib/prompt/spans.js";
import { INITIAL_STATE } from "../lib/trainer/checkpoint.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { type LossRow, microbatches, normalizerOf } from "../lib/trainer/loss-rows.js";
import { afterEvaluation, endedBy } from "../lib/trainer/milestones.js";
import { contrastText, type PrivilegedInput, privilegedText } from "../lib/trainer/privileged-text.js";
import { endlessOrder, hashSeed, permutation } from "../lib/trainer/random.js";
import { bootstrapMean, passAtK, wilson } from "../lib/trainer/statistics.js";
import { learningRateOf, toBatch, update } from "../lib/trainer/update.js";
import { configOf, rolloutOf } from "./support/rollouts.js";

const THINK = { open: "<think>", close: "</think>" };

describe("spans", () => {
  test("begin in the prompt where it ends with the open tag, and nowhere else in it", () => {
    const pieces = ["a", "b</think>", "c"];
    expect([...spanMask(pieces, THINK, "<|assistant|><think>\n")]).toEqual([1, 1, 0]);
    expect([...spanMask(["a", "b"], THINK, "<think>")]).toEqual([1, 1]);
    expect([...spanMask(pieces, THINK, "Begin with <think>.<|assistant|>")]).toEqual([0, 0, 0]);
    expect([...spanMask(["<think>", "a"], THINK, "<think>")]).toEqual([0, 1]);
  });

  test("are found whatever the tokens are", () => {
    const pieces = ["a<th", "ink>b", "c</thi", "nk>d", "<think>", "e"];
    expect([...spanMask(pieces, THINK, "")]).toEqual([0, 1, 1, 0, 0, 1]);
  });

  test("several, empty and unclosed", () => {
    expect(spansIn("x<t>ab</t>y<t></t><t>z", "<t>", "</t>")).toEqual([
      [4, 6],
      [14, 14],
      [21, 22],
    ]);
    expect([...spanMask(["none"], { open: "<t>", close: "</t>" }, "")]).toEqual([0]);
  });
});

describe("the prompt of a model without a chat template", () => {
  const file = join(__dirname, "fixtures/models/tokenizer-bpe/tokenizer.json");
  const json = JSON.parse(readFileSync(file, "utf8"));
  /** As the tokenizer puts the named tokens before a text and behind it. */
  const prompterOf = (before: readonly string[], behind: readonly string[]) => {
    const plain = createTokenizer(JSON.stringify(json));
    const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const named = [...before, ...behind].map((id) => [id, { id, ids: [plain.idOf(id)], tokens: [id] }]);
    const single = [...before.map(special), { Sequence: { id: "A", type_id: 0 } }, ...behind.map(special)];
    const post_processor = {
      type: "TemplateProcessing",
      single,
      pair: single,
      special_tokens: Object.fromEntries(named),
    };
    const tokenizer = createTokenizer(JSON.stringify({ ...json, post_processor }));
    return { plain, tokenizer, prompter: createPrompter(tokenizer, undefined) };
  };
  const asked = [{ role: "user", content: "two and two" }];

  test("begins with the token that the tokenizer begins a text with, and does not end with its last", () => {
    const { plain, prompter } = prompterOf(["<|im_start|>"], ["<|im_end|>"]);
    const begin = plain.idOf("<|im_start|>")!;
    expect(prompter.prompt(asked)).toEqual({
      text: "<|im_start|>two and two",
      ids: Int32Array.of(begin, ...plain.encode("two and two")),
    });
    const begun = [{ role: "user", content: "<|im_start|>two" }];
    expect([...prompter.ids(begun)]).toEqual([...plain.encode("<|im_start|>two")]);
    expect(() => prompter.ids([{ role: "user", content: "" }])).toThrow("no tokens");
  });

  test("is the text alone where the tokenizer begins with none", () => {
    for (const behind of [[], ["<|im_end|>"]]) {
      const { plain, prompter } = prompterOf([], behind);
      expect(prompter.prompt(asked)).toEqual({ text: "two and two", ids: plain.encode("two and two") });
    }
  });

  test("with a template is what that says", () => {
    const { plain, tokenizer } = prompterOf(["<|im_start|>"], []);
    const template = createChatTemplate("{{ messages[0].content }}");
    expect(createPrompter(tokenizer, template).prompt(asked).ids).toEqual(plain.encode("two and two"));
  });
});

describe("the privileged prompt", () => {
  const encoder = {
    encode: (text: string) => Int32Array.from(text, (c) => c.charCodeAt(0)),
    decode: (ids: ArrayLike<number>) => String.fromCharCode(...Array.from(ids)),
  };
  const prompter = createPrompter(encoder, undefined);
  const block = createPrivilegedBlock("{{ content }}|{{ privileged }}");
  const request = {
    messages: [
      { role: "system", content: "S" },
      { role: "user", content: "Q1" },
      { role: "user", content: "Q2" },
    ],
    privileged: "0123456789",
    answer: null,
    row: {},
  };
  const make = (limits: { budget: number; maxTokens: number }) => privilegedPrompt(request, block, prompter, limits);
  const text = (ids: Int32Array | undefined) => ids && encoder.decode(ids);

  test("is the student's own messages plus one block", () => {
    const made = make({ budget: 100, maxTokens: 100 });
    expect(text(made?.ids)).toBe("SQ1Q2|0123456789");
    expect(made?.truncated).toBe(false);
  });

  test("is cut in the privileged text alone, and only as far as it must", () => {
    expect(text(make({ budget: 10, maxTokens: 100 })?.ids)).toBe("SQ1Q2|0123");
    expect(text(make({ budget: 100, maxTokens: 3 })?.ids)).toBe("SQ1Q2|012");
    expect(make({ budget: 10, maxTokens: 100 })).toMatchObject({ truncated: true, privileged: "0123" });
  });

  test("is none where there is no room", () => {
    expect(make({ budget: 6, maxTokens: 100 })).toBeUndefined();
  });

  test("templates that would leave out the question or the privileged text are refused", () => {
    expect(() => createPrivilegedBlock("{{ content }}")).toThrow("never uses {{ privileged }}");
    expect(() => createPrivilegedBlock("{{ privileged }}")).toThrow("never uses {{ content }}");
    expect(() => createPrivilegedBlock("{% if %}")).toThrow(/not valid Jinja/);
  });

  test("templates see the row", () => {
    const own = createPrivilegedBlock("{{ content }}{{ privileged }}{{ row.note }}");
    const made = privilegedPrompt({ ...request, row: { note: "!" } }, own, prompter, { budget: 99, maxTokens: 9 });
    expect(text(made?.ids)).toBe("SQ1Q2012345678!");
  });
});

describe("privileged text", () => {
  const input = (o: Partial<PrivilegedInput> = {}): PrivilegedInput => {
    const rollout = rolloutOf("wrong");
    const verdict = { reward: 0, detail: { feedback: "line 3 fails" } };
    return { example: rollout.prompt.example, rollout, verdict, siblings: [{ rollout, verdict }], ...o };
  };
  const from = (source: "auto" | "answer" | "feedback" | "sibling" | "document", o: Partial<PrivilegedInput> = {}) =>
    privilegedText(input(o), configOf({ privileged: { source } }));

  test("comes from where the settings say", () => {
    expect([from("auto"), from("answer"), from("feedback"), from("document")]).toEqual([
      "a trace",
      "42",
      "line 3 fails",
      null,
    ]);
  });

  test("a sibling is a successful one, and never the completion itself", () => {
    const own = rolloutOf("own");
    const good = rolloutOf("good", { id: "e#1" });
    const right = { reward: 1, detail: {} };
    const alone = { rollout: own, verdict: right, siblings: [{ rollout: own, verdict: right }] };
    expect(from("sibling", alone)).toBeNull();
    expect(from("sibling", { ...alone, siblings: [...alone.siblings, { rollout: good, verdict: right }] })).toBe(
      "good",
    );
  });

  test("feedback and answers are found in the parts of a sum or a gate too", () => {
    const part = { reward: 0, detail: { feedback: "line 5 fails", extracted: "7" } };
    const verdict = { reward: 0.5, detail: { tags: { reward: 1 }, gate: { reward: 1, detail: { module: part } } } };
    const rollout = rolloutOf("own");
    expect(from("feedback", { rollout, verdict })).toBe("line 5 fails");
    const siblings = [{ rollout: rolloutOf("other", { id: "o" }), verdict }];
    expect(contrastText(input({ siblings }), configOf({ privileged: { source: "answer" } }))).toBe("7");
  });

  test("the contrast is the worst rejected sibling: its answer where answers are privileged, else its text", () => {
    const own = rolloutOf("own");
    const sibling = (text: string, reward: number | null, extracted: string) => ({
      rollout: rolloutOf(text, { id: text }),
      verdict: { reward, detail: { extracted } },
    });
    const siblings = [
      { rollout: own, verdict: { reward: -9, detail: { extracted: "own" } } },
      sibling("bad", 0.2, "3"),
      sibling("worst", -1, "5"),
      sibling("unjudged", null, "6"),
      sibling("good", 1, "42"),
    ];
    const settings = configOf({ privileged: { source: "trace" } });
    expect(contrastText(input({ rollout: own, siblings }), settings)).toBe("worst");
    expect(contrastText(input({ rollout: own, siblings }), configOf({ privileged: { source: "answer" } }))).toBe("5");
    expect(contrastText(input({ rollout: own, siblings: [siblings[0], siblings[4]] }), settings)).toBeNull();
  });
});

describe("a token batch", () => {
  const row = (text: string, o: Partial<LossRow> = {}): LossRow => ({
    rollout: rolloutOf(text),
    advantage: 1,
    evidence: undefined,
    span: undefined,
    ...o,
  });
  const evidence = (n: number, contrast = false) => ({
    privileged: "p",
    truncated: false,
    teacherLogProbs: new Float32Array(n).fill(-1),
    ...(contrast && { contrastLogProbs: new Float32Array(n).fill(-2) }),
  });

  test("gives rows without a teacher a span of nothing, so that their credit is exactly 1", () => {
    const batch = toBatch([row("ab", { evidence: evidence(2) }), row("c")], rlsd());
    expect([...(batch.spanMask ?? [])]).toEqual([1, 1, 0]);
    expect(batch.teacherLogProbs).toHaveLength(3);
    expect(toBatch([row("ab")], rlsd())).not.toHaveProperty("teacherLogProbs");
  });

  test("without a rejected sibling the contrast is the teacher itself", () => {
    const batch = toBatch([row("a", { evidence: evidence(1, true) }), row("b", { evidence: evidence(1) })], rlsd());
    expect([...(batch.contrastLogProbs ?? [])]).toEqual([-2, -1]);
  });

  test("counts its normaliser over the whole minibatch, flat groups included", () => {
    const rows = [row("abc", { advantage: 0 }), row("d")];
    const divisor = (options: ObjectiveOptions, settings: TrainConfig = {}) =>
      normalizerOf(rlsd(options), rows, configOf(settings));
    expect(divisor({})).toBe(4);
    expect(divisor({ reduction: "sequence-mean" })).toBe(2);
    expect(divisor({ normalizer: 7 })).toBe(7);
    // Dr. GRPO: rows times the longest completion that is allowed.
    const drGrpo = { objective: { preset: "drGrpo" as const }, rollout: { maxTokens: 50 } };
    expect(divisor({ reduction: "sequence-sum" }, drGrpo)).toBe(100);
    expect(divisor({ reduction: "sequence-sum", normalizer: 7 }, drGrpo)).toBe(7);
    expect(divisor({ reduction: "sequence-sum" }, { objective: { preset: "luspo" } })).toBe(2);
  });

  test("is cut by tokens, prompts included, with at least one row each", () => {
    const cut = microbatches([row("abc"), row("d"), row("efghijkl"), row("m")], 8);
    expect(cut.map((part) => part.map((one) => one.rollout.text))).toEqual([["abc", "d"], ["efghijkl"], ["m"]]);
  });

  test("is cut to what the policy computes at once, each update's rows in their own order", async () => {
    const cuts: string[][] = [];
    const policy = {
      batchTokens: 9,
      accumulate: async ({ sequences }: TrainBatch) => {
        cuts.push(sequences.map(({ completion }) => String.fromCharCode(...completion)));
        const logProbs = new Float32Array(sequences.reduce((n, { completion }) => n + completion.length, 0));
        return { logProbs, tokenAdvantages: logProbs };
      },
      step: async () => ({ gradientNorm: 1, skipped: false }),
    };
    const { prompt } = rolloutOf("q");
    const rows = Array.from("abcdefgh", (c) => row(c, { rollout: rolloutOf(c, { prompt }) }));
    const of = async (settings: TrainConfig) => {
      cuts.length = 0;
      const o = { config: configOf(settings), objective: rlsd(), creditMix: 0, step: 1 };
      await update(policy as unknown as Policy, rows, o);
      return cuts.map((cut) => cut.join(""));
    };
    expect(await of({})).toEqual(["abcdefg", "h"]);
    expect(await of({ update: { microbatchTokens: 5 } })).toEqual(["abc", "def", "gh"]);
    const halves = await of({ update: { minibatches: 2 } });
    expect(halves.map((half) => [...half].sort().join(""))).toEqual(halves);
    expect([...halves.join("")].sort().join("")).toBe("abcdefgh");
    expect(halves[0]).not.toBe("abcd");
    // As many updates as there are asked for, where they do not divide the rows too.
    const five = await of({ update: { minibatches: 5 } });
    expect(five.map((one) => one.length).sort()).toEqual([1, 1, 2, 2, 2]);
    expect([...five.join("")].sort().join("")).toBe("abcdefgh");
  });

  test("counts a prompt once for the completions of it that lie side by side, up to eight keys a token", () => {
    const { prompt } = rolloutOf("q");
    const of = (text: string, own = prompt) => row(text, { rollout: rolloutOf(text, { prompt: own }) });
    const texts = (rows: LossRow[], budget: number) =>
      microbatches(rows, budget).map((part) => part.map((one) => one.rollout.text));
    const other = rolloutOf("q").prompt;
    expect(texts([of("abc"), of("de"), of("f"), of("g", other)], 8)).toEqual([["abc", "de", "f"], ["g"]]);
    const long = { ...prompt, ids: new Int32Array(29) };
    expect(
      texts(
        Array.from("abcdefghij", (c) => of(c, long)),
        40,
      ).map((part) => part.length),
    ).toEqual([10]);
    expect(
      texts(
        Array.from("abcdefghij", (c) => of(c, long)),
        30,
      ).map((part) => part.length),
    ).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(
      texts(
        Array.from("abcdefghijkl", (c) => of(c, long)),
        41,
      ).map((part) => part.length),
    ).toEqual([10, 2]);
  });
});

describe("schedules", () => {
  const o = configOf({ optimizer: { learningRate: 1, warmup: 2, schedule: "linear", minRatio: 0.5 } }).optimizer;
  test("the learning rate rises, then falls to its floor", () => {
    expect([1, 2, 4, 6].map((step) => learningRateOf(step, 6, o))).toEqual([0.5, 1, 0.75, 0.5]);
    expect(learningRateOf(6, 6, { ...o, schedule: "cosine" })).toBeCloseTo(0.5, 12);
    expect(learningRateOf(6, 6, { ...o, schedule: "constant" })).toBe(1);
  });
});

describe("figures", () => {
  test("Wilson's interval and pass@k agree with published values", () => {
    // Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    const cases: [number, number, number, number][] = [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ];
    for (const [x, n, low, high] of cases) {
      expect(wilson(x, n).low).toBeCloseTo(low, 4);
      expect(wilson(x, n).high).toBeCloseTo(high, 4);
    }
    // 1 - C(7, 2) / C(10, 2) = 1 - 21 / 45
    expect(passAtK(10, 3, 2)).toBeCloseTo(1 - 21 / 45, 12);
    expect([passAtK(4, 0, 4), passAtK(4, 1, 4), passAtK(4, 4, 1)]).toEqual([0, 1, 1]);
  });

  test("the bootstrap holds the mean, shrinks with more problems, and is the same every time", () => {
    const values = (n: number) => Array.from({ length: n }, (_, i) => i % 2);
    const [small, large] = [bootstrapMean(values(20), 1), bootstrapMean(values(2000), 1)];
    expect(small.low).toBeLessThan(0.5);
    expect(small.high).toBeGreaterThan(0.5);
    expect(large.high - large.low).toBeLessThan((small.high - small.low) / 5);
    expect(bootstrapMean(values(20), 1)).toEqual(small);
    expect(bootstrapMean([1, 1, 1], 1)).toEqual({ low: 1, high: 1 });
  });
});

describe("random numbers without state", () => {
  test("every pass has each item once, and another order", () => {
    const order = endlessOrder(5, 9, true);
    const pass = (k: number) => Array.from({ length: 5 }, (_, i) => order.at(5 * k + i));
    expect(pass(0).toSorted()).toEqual([0, 1, 2, 3, 4]);
    expect([pass(1), pass(2), pass(3)]).not.toEqual([pass(0), pass(0), pass(0)]);
    expect(endlessOrder(5, 9, true).at(7)).toBe(order.at(7));
    expect(Array.from({ length: 7 }, (_, k) => endlessOrder(3, 9, false).at(k))).toEqual([0, 1, 2, 0, 1, 2, 0]);
  });

  test("seeds differ by purpose and permutations are even", () => {
    expect(hashSeed(1, "a", 2)).not.toBe(hashSeed(1, "a", 3));
    expect(hashSeed(1, 23)).not.toBe(hashSeed(12, 3));
    const first = Array.from({ length: 3000 }, (_, seed) => permutation(3, hashSeed(seed))[0]);
    for (const item of [0, 1, 2]) expect(first.filter((one) => one === item).length).toBeGreaterThan(850);
  });
});

test("an evaluation is better by more than stop.minDelta, and patience counts those that are not", () => {
  const data = { train: ["d"], eval: ["e"] };
  const after = (minDelta: number) => {
    const config = configOf({ data, stop: { patience: 2, minDelta } });
    const states = [0.5, 0.55, 0.6].map((accuracy, i) => ({ accuracy, step: i }));
    return states.reduce(
      ({ state }, { accuracy, step }) => {
        const next = afterEvaluation({ ...state, step }, accuracy, config);
        return { state: next, ended: endedBy(next, config) };
      },
      { state: INITIAL_STATE, ended: null as ReturnType<typeof endedBy> },
    );
  };
  expect(after(0)).toMatchObject({ state: { best: { step: 2, accuracy: 0.6 }, sinceBest: 0 }, ended: null });
  expect(after(0.07)).toMatchObject({ state: { best: { step: 2, accuracy: 0.6 }, sinceBest: 0 }, ended: null });
  expect(after(0.2)).toMatchObject({ state: { best: { step: 0, accuracy: 0.5 }, sinceBest: 2 }, ended: "patience" });
});
