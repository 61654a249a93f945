import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rowCoefficient } from "../lib/objectives/presets.js";
import { loadPolicy } from "../lib/policy/load.js";
import { createTokenizer } from "../lib/policy/tokenizer.js";
import { createChatTemplate } from "../lib/prompt/chat-template.js";
import { createPrompter } from "../lib/prompt/prompter.js";
import { type Imitation, turnImitations } from "../lib/prompt/turns.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";

const tokenizer = createTokenizer(
  readFileSync(join(__dirname, "fixtures/models/tokenizer-bpe/tokenizer.json"), "utf8"),
);
const END = tokenizer.idOf("<|im_end|>")!;
const turn = (role: string, content: string) => ({ role, content });
const CONVERSATION = [
  turn("system", "brief"),
  turn("user", "two and two"),
  turn("assistant", "four,\n\nwhich is 4"),
  turn("user", "and three"),
  turn("assistant", "seven"),
];

/** As Qwen 2.5's: what was written stays. */
const APPENDING =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/** As Qwen 3's: thoughts before the last question are left out. */
const FORGETTING =
  "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}" +
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and '</think>' in m.content and loop.index0 < ns.last %}" +
  "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const imitationsOf = (source: string | undefined, messages = CONVERSATION, ends = [END]) =>
  turnImitations(
    createPrompter(tokenizer, source === undefined ? undefined : createChatTemplate(source)),
    { messages },
    ends,
  );

/** What is read and what is learned of a imitation, in turn: [read, learned, read, learned, ...]. */
function parts({ prompt, ids, mask }: Imitation): string[] {
  const runs: number[][] = [[...prompt.ids]];
  let learned = false;
  for (const [t, id] of ids.entries()) {
    const kept = mask?.[t] !== 0;
    if (kept !== learned) runs.push([]);
    learned = kept;
    runs.at(-1)!.push(id);
  }
  return runs.map((run) => tokenizer.decode(run));
}

describe("all turns of a conversation", () => {
  test("are one sequence where the template only appends: what the model would draw is learned, the rest is read", () => {
    const [imitation, ...more] = imitationsOf(APPENDING);
    expect(more).toEqual([]);
    expect(parts(imitation!)).toEqual([
      "<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\ntwo and two<|im_end|>\n<|im_start|>assistant\n",
      "four,\n\nwhich is 4<|im_end|>",
      "\n<|im_start|>user\nand three<|im_end|>\n<|im_start|>assistant\n",
      "seven<|im_end|>",
    ]);
    // The ids are those of the whole conversation, encoded at once.
    const whole = tokenizer.encode(createChatTemplate(APPENDING).render(CONVERSATION, { addGenerationPrompt: false }));
    const ids = [...imitation!.prompt.ids, ...imitation!.ids];
    expect(ids).toEqual([...whole.subarray(0, ids.length)]);
  });

  test("are a sequence each where the template writes earlier ones anew, every one as it was when it was its turn", () => {
    const messages = CONVERSATION.map((message) =>
      message.role === "assistant" ? turn("assistant", `<think>\nhm\n</think>\n${message.content}`) : message,
    );
    expect(imitationsOf(FORGETTING, messages).map(parts)).toEqual([
      [
        "<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\ntwo and two<|im_end|>\n<|im_start|>assistant\n",
        "<think>\nhm\n</think>\nfour,\n\nwhich is 4<|im_end|>",
      ],
      [
        // As it is read by then: without the thought.
        "<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\ntwo and two<|im_end|>\n<|im_start|>assistant\n" +
          "four,\n\nwhich is 4<|im_end|>\n<|im_start|>user\nand three<|im_end|>\n<|im_start|>assistant\n",
        "<think>\nhm\n</think>\nseven<|im_end|>",
      ],
    ]);
    // A turn without a thought stays as it was, and the next one goes on behind it.
    const first = messages.map((message, i) => (i === 2 ? turn("assistant", "four") : message));
    expect(imitationsOf(FORGETTING, first)).toHaveLength(1);
  });

  test("are a sequence each without a template, whose text has no ends of turns", () => {
    expect(imitationsOf(undefined).map(parts)).toEqual([
      ["brieftwo and two", "four,\n\nwhich is 4<|im_end|>"],
      ["brieftwo and twofour,\n\nwhich is 4and three", "seven<|im_end|>"],
    ]);
  });

  test("leave out what answers nobody, and need no last answer", () => {
    const greeting = [turn("assistant", "hello"), turn("user", "two and two"), turn("assistant", "four")];
    const [imitation] = imitationsOf(APPENDING, [...greeting, turn("user", "thanks")]);
    expect(parts(imitation!)).toEqual([
      "<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\ntwo and two<|im_end|>\n<|im_start|>assistant\n",
      "four<|im_end|>",
    ]);
    expect(imitationsOf(APPENDING, greeting.slice(0, 2))).toEqual([]);
  });

  test("that say nothing, or leave a thought open, are named", () => {
    const empty = [turn("user", "a"), turn("assistant", " "), turn("user", "b"), turn("assistant", "c")];
    expect(() => imitationsOf(APPENDING, empty)).toThrow("message 2 (sft.turns is all): the trace has no tokens");
    const opening = APPENDING.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
    expect(() => imitationsOf(opening)).toThrow(/^message 3 \(sft\.turns is all\): the prompt ends with <think>/);
  });
});

const TALK = [
  turn("user", "Clock at 2, then + 8."),
  turn("assistant", "2 + 8 = 10\nAnswer: 10"),
  turn("user", "Clock at 1, then + 4."),
  turn("assistant", "1 + 4 = 5\nAnswer: 5"),
];
const SHORT = [turn("user", "Clock at 3, then + 4."), turn("assistant", "3 + 4 = 7\nAnswer: 7")];

/** One step of the built-in example on conversations. */
function talked(
  conversations: readonly (typeof TALK)[],
  o: TrainConfig = {},
): TrainConfig & { model: string; output: string; data: { train: string[]; shuffle: boolean } } {
  const folder = mkdtempSync(join(tmpdir(), "rlsd-turns-"));
  const file = join(folder, "talks.jsonl");
  writeFileSync(file, conversations.map((messages) => JSON.stringify({ messages })).join("\n"));
  return {
    ...exampleSettings(),
    algorithm: "sft",
    sft: { turns: "all" },
    steps: 1,
    rollout: { prompts: conversations.length, maxTokens: 20 },
    optimizer: { learningRate: 1e-3 },
    ...o,
    model: o.model ?? exampleSettings().model!,
    output: join(folder, "run"),
    data: { train: [file], shuffle: false },
  };
}

const weightsOf = (folder: string) => readFileSync(join(folder, "model.safetensors"));

describe("sft.turns=all", () => {
  test("is cross-entropy over the tokens of all turns, every token alike: the weights of a step by hand", async () => {
    const settings = talked([TALK, SHORT]);
    const { checkpoint } = await train(settings);
    await using policy = await loadPolicy(settings.model);
    const encode = (text: string) => policy.tokenizer!.encode(text);
    const asked = (text: string) => `<|user|>${text}<|assistant|>`;
    const said = (at: number) => encode(`${TALK[at]!.content}<|end|>`);
    const between = encode(asked(TALK[2]!.content));
    const completion = Int32Array.of(...said(1), ...between, ...said(3));
    const mask = [said(1).map(() => 1), between.map(() => 0), said(3).map(() => 1)].flatMap((part) => [...part]);
    const other = encode(`${SHORT[1]!.content}<|end|>`);
    const sequences = [
      { prompt: encode(asked(TALK[0]!.content)), completion },
      { prompt: encode(asked(SHORT[0]!.content)), completion: other },
    ];
    const completionMask = Uint8Array.from([...mask, ...other.map(() => 1)]);
    const tokens = completionMask.reduce((a, b) => a + b);
    const advantages = new Float32Array(completionMask.length).fill(-1 / tokens);
    const { loss } = await policy.accumulate({ sequences, advantages, completionMask }, rowCoefficient());
    await policy.step({ learningRate: 1e-3, weightDecay: 0 });
    const byHand = join(settings.output, "..", "hand");
    await policy.save(byHand);
    expect(weightsOf(join(checkpoint, "model")).equals(weightsOf(byHand))).toBe(true);
    for await (const line of readMetrics(settings.output)) {
      expect(line).toMatchObject({ loss, tokens, length: tokens / 2, lengthMax: mask.filter((kept) => kept).length });
    }
    // What lies between the turns is no part of the loss.
    await using again = await loadPolicy(settings.model);
    const scored = await again.score(sequences);
    const sum = scored.flatMap((row) => [...row]).reduce((a, p, t) => a - (completionMask[t] === 1 ? p : 0), 0);
    expect(loss).toBeCloseTo(sum / tokens, 5);
  });

  test("tells the held-out loss of all turns, and learns more than the last", async () => {
    const o = { steps: 40, eval: { every: 40 }, optimizer: { learningRate: 3e-3 } };
    const settings = talked([TALK], o);
    const losses = async (turns: "all" | "last") => {
      const output = join(settings.output, "..", turns);
      const data = { ...settings.data, eval: settings.data.train };
      // Judged by no more than that something was said: the row's own answer is in its turns.
      const reward = () => 1;
      await train({ ...settings, output, data, reward, sft: { turns } });
      const out: number[] = [];
      for await (const { kind, loss } of readMetrics(output)) if (kind === "eval") out.push(loss as number);
      return out;
    };
    const [all, last] = [await losses("all"), await losses("last")];
    // At the start the first turn, too, is compared with.
    expect(all[0]).not.toBeCloseTo(last[0]!, 3);
    expect(all[1]).toBeLessThan(0.1);
    expect(last[1]).toBeLessThan(0.1);
  });

  test("is planned: turns in their order, tokens of the longest conversation", async () => {
    const plan = await dryRun(talked([TALK, SHORT]));
    expect(plan.asked).toMatchObject({
      student: `<|user|>${TALK[0]!.content}<|assistant|>${TALK[1]!.content}<|end|><|user|>${TALK[2]!.content}<|assistant|>`,
      demonstration: `${TALK[3]!.content}<|end|>`,
      earlier: [`${TALK[1]!.content}<|end|>`],
    });
    const longest = plan.promptTokens.max + (await dryRun(talked([TALK], { sft: { turns: "last" } }))).traceTokens!.max;
    expect(plan).toMatchObject({ sequencesPerStep: 2, tokensPerStep: 2 * longest });
    expect(dryRunText(plan)).toMatch(
      /^step {7}2 rows with all turns: [\s\S]*then:\n {2}\| 1 \+ 4 = 5\n {2}\| Answer: 5<\|end\|>\nand before that, as turn 1:\n {2}\| 2 \+ 8 = 10/m,
    );
  });

  test("learns turns in sequences of their own as those of one row", async () => {
    const model = join(mkdtempSync(join(tmpdir(), "rlsd-turns-")), "model");
    cpSync(exampleSettings().model!, model, { recursive: true });
    const template = readFileSync(join(model, "chat_template.jinja"), "utf8");
    // What was answered before is read in other words.
    const forgetting = template.replace(
      "{{ message.content }}",
      "{% if message.role == 'assistant' and not loop.last %}said{% else %}{{ message.content }}{% endif %}",
    );
    expect(forgetting).not.toBe(template);
    writeFileSync(join(model, "chat_template.jinja"), forgetting);
    const settings = talked([TALK, SHORT], { model });
    await train(settings);
    const plan = await dryRun({ ...settings, output: "" });
    expect(plan).toMatchObject({ sequencesPerStep: 4, asked: { earlier: [`${TALK[1]!.content}<|end|>`] } });
    const appended = talked([TALK, SHORT]);
    await train(appended);
    const lineOf = async (run: string) => {
      for await (const line of readMetrics(run)) return line;
      throw new Error("no step");
    };
    const [own, one] = [await lineOf(settings.output), await lineOf(appended.output)];
    expect([own.tokens, own.length, own.lengthMax]).toEqual([one.tokens, one.length, one.lengthMax]);
    expect(own.loss).not.toBe(one.loss);
  });

  test("refuses a row in which the assistant says nothing", async () => {
    await expect(train(talked([TALK.slice(0, 1)]))).rejects.toThrow(/talks\.jsonl:1: there is no trace to learn/);
  });

  test("goes on from a checkpoint to the same bits", async () => {
    const settings = talked([TALK, SHORT], { steps: 4 });
    const straight = await train({ ...settings, output: join(settings.output, "..", "straight") });
    await train({ ...settings, steps: 2 });
    const resumed = await train(settings, { resume: settings.output });
    const model = (checkpoint: string) => weightsOf(join(checkpoint, "model"));
    expect(model(resumed.checkpoint).equals(model(straight.checkpoint))).toBe(true);
    expect(resumed.tokens).toBe(straight.tokens);
  });
});
