// GRPO in TensorFlow.js: a network learns to answer each prompt with the two tokens of its answer. The loss is policyLoss.
// Run: node --import ./scripts/ts-register.mjs examples/tfjs/fused.ts
import * as tf from "@tensorflow/tfjs";
import { groupAdvantages, grpo, policyLossSync, type Scores, tensor } from "../../lib/index.js"; // in a project of yours: from "rlsd"

const PROMPTS = 10;
const VOCAB = 6;
const LENGTH = 2;
const GROUP = 16;
const B = PROMPTS * GROUP;
const answerOf = (prompt: number): number[] => [prompt % VOCAB, (3 * prompt + 1) % VOCAB];

/** What was sampled: N = B * LENGTH tokens, sequence after sequence. */
export interface Rollout {
  readonly prompts: Int32Array;
  readonly meanReward: number;
  readonly batch: {
    readonly tokenIds: Int32Array;
    readonly cuSeqlens: Int32Array;
    readonly oldLogProbs: Float32Array;
    readonly advantages: Float32Array;
  };
}

/** logits (N, V) = relu(x W + b) U + c; x: the prompt, the position, and the token before. */
export class Network {
  readonly weights: readonly tf.Variable[];

  constructor(seed: number) {
    const sizes = [PROMPTS + LENGTH + VOCAB, 32, VOCAB] as const;
    const make = (shape: number[], spread: number, n: number) =>
      tf.variable(tf.randomNormal(shape, 0, spread, "float32", seed + n));
    this.weights = [
      make([sizes[0], sizes[1]], 0.4, 1),
      make([sizes[1]], 0, 2),
      make([sizes[1], sizes[2]], 0.1, 3),
      make([sizes[2]], 0, 4),
    ];
  }

  logits(prompts: Int32Array, tokenIds: Int32Array): tf.Tensor2D {
    const n = prompts.length * LENGTH;
    const of = (f: (i: number) => number) => Int32Array.from({ length: n }, (_, i) => f(i));
    const x = tf.concat(
      [
        tf.oneHot(
          of((i) => prompts[Math.floor(i / LENGTH)]!),
          PROMPTS,
        ),
        tf.oneHot(
          of((i) => i % LENGTH),
          LENGTH,
        ),
        tf.oneHot(
          of((i) => (i % LENGTH === 0 ? -1 : tokenIds[i - 1]!)),
          VOCAB,
        ),
      ],
      1,
    );
    const [w, b, u, c] = this.weights as unknown as [tf.Tensor2D, tf.Tensor1D, tf.Tensor2D, tf.Tensor1D];
    return tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(tf.cast(x, "float32"), w), b)), u), c);
  }
}

/** One completion for every prompt of every group, and what it was worth. */
export function sample(network: Network, random: () => number): Rollout {
  const prompts = Int32Array.from({ length: B }, (_, b) => Math.floor(b / GROUP));
  const tokenIds = new Int32Array(B * LENGTH);
  const oldLogProbs = new Float32Array(B * LENGTH);
  for (let t = 0; t < LENGTH; t++) {
    const logProbs = tf.tidy(() => tf.logSoftmax(network.logits(prompts, tokenIds)).dataSync());
    for (let i = t; i < tokenIds.length; i += LENGTH) {
      let id = 0;
      for (let rest = random(); id < VOCAB - 1; id++) {
        rest -= Math.exp(logProbs[i * VOCAB + id]!);
        if (rest < 0) break;
      }
      tokenIds[i] = id;
      oldLogProbs[i] = logProbs[i * VOCAB + id]!;
    }
  }
  const rewards = Array.from(prompts, (prompt, b) =>
    answerOf(prompt).every((id, t) => tokenIds[b * LENGTH + t] === id) ? 1 : 0,
  );
  const advantages = groupAdvantages(rewards, Array.from(prompts));
  const cuSeqlens = Int32Array.from({ length: B + 1 }, (_, b) => b * LENGTH);
  const meanReward = rewards.reduce<number>((a, b) => a + b, 0) / B;
  return { prompts, meanReward, batch: { tokenIds, cuSeqlens, oldLogProbs, advantages } };
}

/** GRPO; with a teacher's view of the same tokens and rlsd({}, grpo()), the same with credit. */
export function lossOf(logits: tf.Tensor2D, batch: Rollout["batch"], teacher?: Scores, objective = grpo()): tf.Scalar {
  const fused = tf.customGrad(() => {
    const student = { logits: tensor(logits.dataSync<"float32">(), logits.shape) };
    const { loss, gradient } = policyLossSync({ ...batch, student, teacher }, objective);
    const dlogits = gradient.logits.data;
    return { value: tf.scalar(loss), gradFunc: (dy) => tf.mul(tf.tensor2d(dlogits, logits.shape), dy) };
  });
  return fused(logits) as tf.Scalar;
}

/** Mean reward after each step. */
export function train(steps: number, random: () => number, seed = 1): number[] {
  const network = new Network(seed);
  const optimizer = tf.train.adam(0.01);
  return Array.from({ length: steps }, () => {
    const { prompts, meanReward, batch } = sample(network, random);
    for (let epoch = 0; epoch < 2; epoch++) {
      optimizer.minimize(() => lossOf(network.logits(prompts, batch.tokenIds), batch));
    }
    return meanReward;
  });
}

if (process.argv[1]?.includes("examples/tfjs")) {
  const rewards = train(60, Math.random);
  rewards.forEach((reward, step) => {
    if (step % 10 === 9) console.log(`step ${step + 1}: mean reward ${reward.toFixed(2)}`);
  });
}
