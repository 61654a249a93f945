import {
  backendInfo,
  type DistillBatch,
  type DistillOptions,
  distillLoss,
  type EnginePolicy,
  RlsdError,
  rowCoefficient,
  tensor,
} from "../lib/index.js";
import { distillReference } from "../lib/reference/distill.js";
import { relativeError } from "./support/safetensors.js";
import { gradientOf, ids, prompts, tinyPolicy } from "./support/small-policy.js";

const present = backendInfo().cpu.operations?.distill_loss === true;
if (!present) process.stderr.write("not run: engine-distill (this build has no distillation loss)\n");

const completions = [5, 1, 0, 7, 4].map((n, i) => Int32Array.from({ length: n }, (_, j) => (11 * i + 5 * j + 2) % 37));
const N = 17;
const sequences = completions.map((completion, i) => ({ prompt: prompts(5)[i]!, completion }));
const teacherSequences = completions.map((completion, i) => ({
  prompt: Int32Array.of(3, ...prompts(5)[i]!, 8, 9, i),
  completion,
}));
const completionMask = Uint8Array.from({ length: N }, (_, i) => Number(i % 6 !== 2));

/** Logits of the rows that predict the completions' tokens. */
async function predicting(policy: EnginePolicy, from: typeof sequences): Promise<Float64Array> {
  const out: number[] = [];
  for (const { prompt, completion } of from) {
    if (completion.length === 0) continue;
    const logits = await policy.logits(Int32Array.of(...prompt, ...completion));
    out.push(...logits.slice((prompt.length - 1) * 37, (prompt.length + completion.length - 1) * 37));
  }
  return Float64Array.from(out);
}

const choices: DistillOptions[] = [
  { divergence: "forward-kl" },
  { divergence: "reverse-kl", reduction: "sequence-mean", temperature: 1.5 },
  { divergence: "jsd", beta: 0.3, reduction: "token-sum" },
  { divergence: "jsd", topK: 5, logitSoftcap: 4, reduction: "sequence-sum", normalizer: 7 },
  { divergence: "forward-kl", topK: 4, tail: false, valueClamp: 0.5 },
];

(present ? describe : describe.skip)("matching a teacher policy's distributions", () => {
  let student: EnginePolicy;
  let teacher: EnginePolicy;
  let batch: DistillBatch;
  beforeAll(async () => {
    student = await tinyPolicy();
    teacher = await tinyPolicy({ hiddenSize: 16, numHeads: 2 }, { seed: 4 });
    batch = { sequences, teacher, teacherSequences, completionMask };
  });
  afterEach(() => student.step({ learningRate: 0 }));
  afterAll(async () => {
    await student.dispose();
    await teacher.dispose();
  });

  test.each(choices)("agrees with the float64 reference on both models' logits: %j", async (o) => {
    const { divergence, reduction = "token-mean", temperature = 1, ...rest } = o;
    const view = async (policy: EnginePolicy, from: typeof sequences) => ({
      logits: await predicting(policy, from),
      vocabSize: 37,
      columns: 37,
    });
    const wanted = distillReference(
      {
        student: (await view(student, sequences)) as never,
        teacher: (await view(teacher, teacherSequences)) as never,
        cuSeqlens: [0, 5, 6, 6, 13, 17],
        completionMask,
      },
      { divergence, reduction, temperature, ...rest },
    );
    const actual = await student.distill(batch, o);
    expect(relativeError(actual.tokenLosses, wanted.tokenLosses)).toBeLessThan(1e-4);
    expect(actual.loss / wanted.loss).toBeCloseTo(1, 4);
    expect(actual.stats).toMatchObject({ tokens: wanted.stats.tokens, sequences: 5, nonFiniteRows: 0 });
    expect(actual.stats.mean).toBeCloseTo(wanted.stats.mean!, 4);
  });

  test("its gradient agrees with finite differences of its loss", async () => {
    const o: DistillOptions = { divergence: "jsd", temperature: 1.3 };
    await student.distill(batch, o);
    for (const [k, name] of student.parameterNames.entries()) {
      const gradient = await student.readParameter(name, "gradient");
      const weights = await student.readParameter(name);
      const direction = weights.map((_w, i) => Math.sin(2.3 * i + k) + 0.2);
      const norm = Math.sqrt(direction.reduce((a, b) => a + b * b, 0));
      const copy = await student.snapshot();
      const shifted = async (sign: number): Promise<number> => {
        await copy.writeParameter(
          name,
          weights.map((w, i) => w + (sign * 3e-3 * direction[i]!) / norm),
        );
        return (await copy.distill(batch, o)).loss;
      };
      const difference = ((await shifted(1)) - (await shifted(-1))) / 6e-3;
      await copy.dispose();
      const directional = gradient.reduce((total, g, i) => total + g * direction[i]!, 0) / norm;
      const scale = Math.sqrt(gradient.reduce((a, g) => a + g * g, 0));
      expect([name, Math.abs(difference - directional) < 1e-2 * scale + 1e-4]).toEqual([name, true]);
    }
  });

  test("several passes give what one gives, and gradients of losses add up", async () => {
    const small = await tinyPolicy({}, { batchTokens: 12 });
    const one = await student.distill(batch, { divergence: "reverse-kl" }, { lossScale: 0.5 });
    const several = await small.distill(batch, { divergence: "reverse-kl" }, { lossScale: 0.5 });
    expect(several.tokenLosses).toEqual(one.tokenLosses);
    expect(several.loss).toBeCloseTo(one.loss, 6);
    const alone = await gradientOf(student);
    expect(relativeError(await gradientOf(small), alone)).toBeLessThan(2e-5);
    const nll = { sequences, advantages: new Float32Array(N).fill(-1 / N) };
    await student.step({ learningRate: 0 });
    await student.accumulate(nll, rowCoefficient({ reduction: "token-sum" }));
    const other = await gradientOf(student);
    await small.accumulate(nll, rowCoefficient({ reduction: "token-sum" }));
    const sum = alone.map((g, i) => g + other[i]!);
    expect(relativeError(await gradientOf(small), sum)).toBeLessThan(2e-5);
    await small.dispose();
  });

  test("a teacher with the student's weights and prompts teaches nothing", async () => {
    const twin = await student.snapshot();
    const same = { sequences, teacher: twin, teacherSequences: sequences };
    const { loss } = await student.distill(same, { divergence: "reverse-kl" });
    expect(Math.abs(loss)).toBeLessThan(1e-6);
    expect((await gradientOf(student)).every((g) => Math.abs(g) < 1e-6)).toBe(true);
    await twin.dispose();
  });

  test("a policy that teaches itself is what a snapshot of it teaches, to the bit", async () => {
    // With one prompt for all and with one for each: rows are read where they are, or where they were copied to.
    const behind = (prompt: Int32Array) => completions.map((completion) => ({ prompt, completion }));
    const together = { sequences: behind(prompts(1)[0]!), teacherSequences: behind(Int32Array.of(3, 8, 9, 4)) };
    const snapshot = await student.snapshot();
    for (const own of [{}, together]) {
      const taught = { ...batch, ...own };
      const apart = await student.distill({ ...taught, teacher: snapshot }, { divergence: "jsd" });
      const wanted = await gradientOf(student);
      await student.step({ learningRate: 0 });
      const one = await student.distill({ ...taught, teacher: student }, { divergence: "jsd" });
      expect(one).toEqual(apart);
      expect(await gradientOf(student)).toEqual(wanted);
      expect(Math.max(...one.tokenLosses)).toBeGreaterThan(1e-4);
      await student.step({ learningRate: 0 });
    }
    await snapshot.dispose();
  });

  test("what does not fit is refused by name", async () => {
    const foreign = await tinyPolicy({ vocabSize: 40 });
    const o: DistillOptions = { divergence: "forward-kl" };
    await expect(student.distill({ ...batch, teacher: foreign }, o)).rejects.toThrow(
      /student's vocabulary of 37 but its own has 40/,
    );
    await expect(student.distill({ ...batch, teacher: {} as EnginePolicy }, o)).rejects.toThrow(
      /a policy of this engine/,
    );
    const cut = teacherSequences.slice(1);
    await expect(student.distill({ ...batch, teacherSequences: cut }, o)).rejects.toThrow(
      /an array of 5 for batch.teacherSequences/,
    );
    const swapped = teacherSequences.map((s, i) => (i === 1 ? { prompt: ids(1), completion: ids(30) } : s));
    await expect(student.distill({ ...batch, teacherSequences: swapped }, o)).rejects.toThrow(
      /batch.teacherSequences\[1\].completion/,
    );
    await foreign.dispose();
  });

  test.each([
    [{ divergence: "kl" }, 'Expected one of "forward-kl", "reverse-kl", "jsd" for divergence but received "kl"'],
    [{ divergence: "k1" }, "teaches nothing"],
    [{ beta: 0 }, "Expected a finite number above 0 and below 1 for beta but received 0."],
    [{ beta: 1 }, "for beta but received 1."],
    [{ topK: 0 }, "Expected a whole number of at least 1 for topK but received 0."],
    [{ topK: 1.5 }, "for topK but received 1.5."],
    [{ topK: 5, tail: "no" }, 'Expected a boolean for tail but received "no"'],
    [{ topK: 5, tail: null }, "Expected a boolean for tail but received null."],
    [{ valueClamp: -1 }, "Expected a finite number above 0 for valueClamp but received -1."],
    [{ reduction: "mean" }, "for reduction"],
    [{ normalizer: 0 }, "for normalizer"],
    [{ temperature: Number.NaN }, "for temperature but received NaN."],
    [{ logitSoftcap: "30" }, 'for logitSoftcap but received "30" of type string.'],
    [{ nonFinite: "ignore" }, 'Expected "error" or "skip" for nonFinite'],
    [{ top_k: 5 }, "Unknown field options.top_k. Did you mean topK?"],
  ])("%j is refused, in the words of distillLoss, and nothing is added", async (wrong, message) => {
    const o = { divergence: "forward-kl", ...wrong } as never;
    const logits = tensor(Float32Array.of(0, 1), [1, 2]);
    const packed = { student: { logits }, teacher: { logits }, cuSeqlens: Int32Array.of(0, 1) };
    const words = (error: unknown): string => {
      expect(error).toBeInstanceOf(RlsdError);
      return (error as RlsdError).message;
    };
    const refused = words(await student.distill(batch, o).catch((error: unknown) => error));
    expect(refused).toContain(message);
    expect(words(await distillLoss(packed, o).catch((error: unknown) => error))).toBe(refused);
    expect((await gradientOf(student)).every((g) => g === 0)).toBe(true);
  });
});
