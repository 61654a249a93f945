import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bnpo } from "../../objectives/presets.js";
import { makeFolder } from "../../policy/folder.js";
import { createPolicy } from "../../policy/load.js";
import type { Policy, ScoreRequest } from "../../policy/policy.js";
import { createTokenizer } from "../../policy/tokenizer.js";
import { createChatTemplate } from "../../prompt/chat-template.js";
import { createPrivilegedBlock, privilegedPrompt } from "../../prompt/privileged.js";
import { createPrompter, type Prompter } from "../../prompt/prompter.js";
import { writing } from "../durable.js";
import { randomStream } from "../random.js";
import {
  copyingHours,
  createPupil,
  drawLesson,
  drawProblem,
  type Problem,
  type Pupil,
  pupilHours,
  questionText,
  type Random,
  solutionText,
  solve,
  toRow,
} from "./clock.js";
import { END_TOKEN, MODEL, MODEL_FILES, PRIVILEGED_TEMPLATE } from "./clock-model.js";

interface PretrainOptions {
  /** Folder of the model and its data. */
  readonly output: string;
  /** Default 1. */
  readonly seed?: number;
  /** Default 1000. */
  readonly steps?: number;
  /** Sequences of each kind in a step; default 64. */
  readonly batch?: number;
  readonly signal?: AbortSignal;
  readonly onStep?: (step: number, steps: number, loss: { plain: number; privileged: number }) => void;
}

const PEAK_RATE = 4e-3;
const WARMUP = 50;
const TRAIN_ROWS = 2000;
const EVAL_ROWS = 300;

/** A sequence to imitate; tokens with mask 0 are read and not learned. */
interface Lesson {
  readonly request: ScoreRequest;
  readonly mask: Uint8Array;
}

/** Writes lessons as the model reads them. */
class Desk {
  readonly prompter: Prompter;
  private readonly block = createPrivilegedBlock(PRIVILEGED_TEMPLATE);
  private readonly end: number;

  constructor() {
    const tokenizer = createTokenizer(MODEL_FILES["tokenizer.json"]!);
    this.prompter = createPrompter(tokenizer, createChatTemplate(MODEL_FILES["chat_template.jinja"]!));
    this.end = tokenizer.idOf(END_TOKEN)!;
  }

  private completion(problem: Problem, hours: readonly number[]): Int32Array {
    return Int32Array.of(...this.prompter.encode(solutionText(problem, hours)), this.end);
  }

  /** The pupil's own work. */
  plain(problem: Problem, pupil: Pupil, random: Random): Lesson {
    const prompt = this.prompter.ids([{ role: "user", content: questionText(problem) }]);
    const completion = this.completion(problem, pupilHours(problem, pupil, random));
    return { request: { prompt, completion }, mask: new Uint8Array(completion.length).fill(1) };
  }

  /** The pupil's work with the solution before him. */
  privileged(problem: Problem, pupil: Pupil, random: Random): Lesson {
    const messages = [{ role: "user", content: questionText(problem) }];
    const privileged = solutionText(problem, solve(problem));
    const limits = { budget: MODEL.maxLength, maxTokens: MODEL.maxLength };
    const prompt = privilegedPrompt(
      { messages, privileged, answer: null, row: {} },
      this.block,
      this.prompter,
      limits,
    )!;
    const { hours, slips } = copyingHours(problem, pupil, random);
    const completion = this.completion(problem, hours);
    // Token 3 i + 3 is the hour after move i.
    const mask = new Uint8Array(completion.length).fill(1);
    for (const [i, slip] of slips.entries()) if (slip) mask[3 * i + 3] = 0;
    return { request: { prompt: prompt.ids, completion }, mask };
  }
}

/** Cross-entropy: with ratio 1 and every advantage 1 the policy loss has its gradient. Returns its value. */
async function imitate(policy: Policy, lessons: readonly Lesson[]): Promise<number> {
  const completionMask = Uint8Array.from(lessons.flatMap((lesson) => [...lesson.mask]));
  const { logProbs, stats } = await policy.accumulate(
    {
      sequences: lessons.map((lesson) => lesson.request),
      completionMask,
      advantages: new Float32Array(lessons.length).fill(1),
    },
    bnpo(),
  );
  return -logProbs.reduce((sum, p) => sum + p, 0) / stats.tokens;
}

function rateAt(step: number, steps: number): number {
  const risen = Math.min(1, (step + 1) / WARMUP);
  return PEAK_RATE * risen * (0.1 + 0.45 * (1 + Math.cos((Math.PI * step) / steps)));
}

async function writeData(output: string, seed: number): Promise<void> {
  // Streams of their own: neither more steps nor more rows change the other's problems.
  for (const [name, count, stream] of [
    ["train", TRAIN_ROWS, seed + 1000],
    ["eval", EVAL_ROWS, seed + 2000],
  ] as const) {
    const random = randomStream(stream);
    const rows = Array.from({ length: count }, (_, i) =>
      JSON.stringify(toRow(drawProblem(random), `${name}-${i + 1}`)),
    );
    await writeFile(join(output, `${name}.jsonl`), `${rows.join("\n")}\n`);
  }
}

/**
 * Makes the base model of the built-in example, and its data: 1000 steps of imitation, half of them with the solution in
 * the prompt. The same seed gives the same weights.
 */
export async function pretrain(options: PretrainOptions): Promise<{ readonly parameters: number }> {
  const { output, seed = 1, steps = 1000, batch = 64, signal, onStep } = options;
  await writing(output, () => makeFolder(output));
  const policy = await createPolicy(MODEL, { seed, deviation: 0.1, files: MODEL_FILES });
  try {
    const desk = new Desk();
    const pupil = createPupil(7);
    const random = randomStream(seed);
    for (let step = 0; step < steps; step++) {
      signal?.throwIfAborted();
      const draw = (make: (problem: Problem) => Lesson) =>
        Array.from({ length: batch }, () => make(drawLesson(random)));
      const plain = await imitate(
        policy,
        draw((problem) => desk.plain(problem, pupil, random)),
      );
      const privileged = await imitate(
        policy,
        draw((problem) => desk.privileged(problem, pupil, random)),
      );
      await policy.step({ learningRate: rateAt(step, steps), weightDecay: 0.01 });
      onStep?.(step + 1, steps, { plain, privileged });
    }
    await policy.save(output, { dtype: "f32" });
    await writing(output, () => writeData(output, seed));
    return { parameters: policy.parameterCount };
  } finally {
    await policy.dispose();
  }
}
