import * as tf from "@tensorflow/tfjs";

/** Best time in milliseconds of RLSD's loss and gradient over (rows, vocab) logits, written in TensorFlow.js. */
export function tfjsLossMs(rows: number, vocab: number, rounds: number): number {
  const student = tf.randomUniform<tf.Rank.R2>([rows, vocab], -4, 4);
  const teacher = tf.randomUniform<tf.Rank.R2>([rows, vocab], -4, 4);
  const ids = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab);
  const chosen = tf.cast(tf.oneHot(ids, vocab), "float32"); // tfjs has no gradient of a gather over both dimensions
  const advantages = tf.tensor1d(Float32Array.from({ length: rows }, (_, i) => (i % 2 === 0 ? 1 : -1)));
  const logProbsOf = (logits: tf.Tensor2D) => tf.sum(tf.mul(tf.logSoftmax(logits), chosen), 1);
  const old = logProbsOf(student);
  const loss = (logits: tf.Tensor2D): tf.Scalar => {
    const logProbs = logProbsOf(logits);
    const delta = tf.sub(logProbsOf(teacher), old);
    const weights = tf.clipByValue(tf.exp(tf.mul(tf.sign(advantages), delta)), 0.8, 1.2);
    const credited = tf.mul(advantages, tf.add(tf.mul(weights, 0.5), 0.5));
    const ratio = tf.exp(tf.sub(logProbs, old));
    return tf.neg(tf.mean(tf.minimum(tf.mul(ratio, credited), tf.mul(tf.clipByValue(ratio, 0.8, 1.28), credited))));
  };
  const gradient = tf.grad((x) => loss(x as tf.Tensor2D));
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    tf.tidy(() => gradient(student).dataSync());
    best = Math.min(best, performance.now() - begin);
  }
  return best;
}
