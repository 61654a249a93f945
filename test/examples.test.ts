import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs";
import { train as trainTable } from "../examples/plain-arrays/grpo.js";
import * as fused from "../examples/tfjs/fused.js";
import * as byHand from "../examples/tfjs/grpo.js";
import { createEnvironment, grpo, rlsd, rlsdCredit, tensor, tokenLogProbsSync } from "../lib/index.js";
import { resolveConfig } from "../lib/trainer/config.js";
import { readConfigFile } from "../lib/trainer/config-file.js";
import { randomLogits, randomNumbers } from "./support/logits.js";
import { relativeError } from "./support/vectors.js";

// tfjs prints a banner on its first use in Node.
jest.spyOn(console, "warn").mockImplementation(() => {});

/** A batch that the first policy sampled, and other logits: ratios on both sides of both clips. */
function offPolicy() {
  const { prompts, batch } = byHand.sample(new byHand.Network(1), randomNumbers(2));
  const logits = new byHand.Network(7).logits(prompts, batch.tokenIds);
  return { batch, logits };
}

function lossAndGradient(loss: (logits: tf.Tensor2D) => tf.Scalar, logits: tf.Tensor2D) {
  const { value, grad } = tf.valueAndGrad((x) => loss(x as tf.Tensor2D))(logits);
  return { loss: value.dataSync()[0]!, gradient: Float32Array.from(grad.dataSync()) };
}

describe("the tfjs trainer with policyLoss through customGrad", () => {
  it("is the trainer by hand but for its loss: some ten lines", () => {
    const lines = (file: string) =>
      readFileSync(join(__dirname, "../examples/tfjs", file), "utf8")
        .split("\n")
        .slice(2);
    const original = new Set(lines("grpo.ts"));
    expect(lines("fused.ts").filter((line) => !original.has(line)).length).toBeLessThanOrEqual(10);
  });

  it("has its loss and gradient under grpo(), where tokens are clipped too", () => {
    const { batch, logits } = offPolicy();
    const expected = lossAndGradient((x) => byHand.lossOf(x, batch), logits);
    const got = lossAndGradient((x) => fused.lossOf(x, batch), logits);
    expect(got.loss).toBeCloseTo(expected.loss, 6);
    expect(relativeError(got.gradient, expected.gradient)).toBeLessThan(1e-5);
    const rows = Array.from(batch.tokenIds, (_, i) => expected.gradient.subarray(6 * i, 6 * i + 6));
    const zeroRows = rows.filter((row) => row.every((g) => g === 0)).length;
    expect(zeroRows).toBeGreaterThan(0);
    expect(zeroRows).toBeLessThan(rows.length);
  });

  it("differs under rlsd({}, grpo()) by the credit and nothing else", () => {
    const { batch, logits } = offPolicy();
    const [n, vocab] = logits.shape;
    const { tokenIds } = batch;
    const view = { logits: tensor(logits.dataSync<"float32">(), [n, vocab]) };
    const teacher = { logits: tensor(Float32Array.from(randomLogits(n * vocab, 1, 3)), [n, vocab]) };
    const { logProbs } = tokenLogProbsSync(view, tokenIds);
    const onPolicy = { ...batch, oldLogProbs: logProbs };
    const teacherLogProbs = tokenLogProbsSync(teacher, tokenIds).logProbs;
    const { cuSeqlens, advantages } = batch;
    const credit = rlsdCredit({ logProbs, teacherLogProbs, cuSeqlens, advantages });
    const plain = lossAndGradient((x) => fused.lossOf(x, onPolicy, undefined, grpo()), logits);
    const credited = lossAndGradient((x) => fused.lossOf(x, onPolicy, teacher, rlsd({}, grpo())), logits);
    const expected = plain.gradient.map((g, at) => {
      const i = Math.floor(at / vocab);
      const advantage = advantages[Math.floor(i / 2)]!;
      return advantage === 0 ? 0 : (g * credit.tokenAdvantages[i]!) / advantage;
    });
    expect(relativeError(credited.gradient, expected)).toBeLessThan(1e-5);
    expect(relativeError(credited.gradient, plain.gradient)).toBeGreaterThan(0.01);
  });

  it("takes the same steps: the samples it draws earn the same rewards", () => {
    const expected = byHand.train(5, randomNumbers(5));
    expect(new Set(expected).size).toBeGreaterThan(1);
    expect(fused.train(5, randomNumbers(5))).toEqual(expected);
  });
});

describe("the trainer of plain arrays", () => {
  it.each([
    ["grpo()", grpo(), 0],
    ["rlsd({}, grpo()) and a teacher that sees the answer", rlsd({}, grpo()), 2],
  ])("learns the answers under %s", (_, objective, hint) => {
    expect(trainTable(30, randomNumbers(5), objective, hint).at(-1)).toBeGreaterThan(0.9);
  });
});

describe("the calculator that a model may call", () => {
  it("is offered by a run whose settings are settings", async () => {
    const folder = join(__dirname, "../examples/tools");
    const config = resolveConfig(await readConfigFile(join(folder, "run.yaml")));
    expect(config.environment).toEqual({ type: "tools", path: join(folder, "calculator.mjs") });
    const rows = readFileSync(config.data.train[0]!, "utf8").trim().split("\n");
    expect(rows.map((row) => typeof JSON.parse(row).answer)).toEqual(rows.map(() => "string"));
  });

  it("reads what it should, and says what is wrong with the rest", async () => {
    const environment = createEnvironment({ type: "tools", path: join(__dirname, "../examples/tools/calculator.mjs") });
    const expressions = [
      "(8347 - 2968) * 76 / 4",
      "2 - 3 - 4",
      "-(1.5 + 2)*-2",
      "2 *",
      "(1 + 2",
      "1 2",
      "process.exit()",
      "",
    ];
    const calls = expressions.map((expression) => ({ name: "calculator", arguments: { expression } }));
    const raw = calls.map((call) => `<tool_call>${JSON.stringify(call)}</tool_call>`).join("");
    try {
      await environment.start();
      const turn = { id: "0#0", turn: 1, messages: [], completion: raw, raw, row: {}, state: undefined };
      const reply = await environment.respond(turn, new AbortController().signal);
      expect("messages" in reply && reply.messages.map(({ content }) => content)).toEqual([
        "102201",
        "-5",
        "7",
        "Error: a number was expected, not the end",
        "Error: a bracket does not close",
        "Error: there is 2 behind the end",
        'Error: numbers, + - * / and ( ) are read, but not "process.exit()"',
        "Error: a number was expected, not the end",
      ]);
    } finally {
      await environment.dispose();
    }
  });
});
