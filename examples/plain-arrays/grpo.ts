// The loss of a trainer that has nothing but arrays: a table of logits learns to answer by plain gradient descent.
// Run: node --import ./scripts/ts-register.mjs examples/plain-arrays/grpo.ts
import { groupAdvantages, grpo, type Objective, policyLossSync, tensor } from "../../lib/index.js"; // yours: from "rlsd"

const PROMPTS = 6;
const VOCAB = 8;
const GROUP = 16;
const B = PROMPTS * GROUP;
const RATE = 40;

/** One id for each prompt, drawn from softmax(table row). */
function sample(table: Float32Array, prompt: number, random: () => number): number {
  const row = Array.from(table.subarray(prompt * VOCAB, (prompt + 1) * VOCAB), Math.exp);
  let rest = random() * row.reduce((a, b) => a + b, 0);
  const id = row.findIndex((weight) => {
    rest -= weight;
    return rest < 0;
  });
  return id < 0 ? VOCAB - 1 : id;
}

/**
 * Mean reward after each step. The right answer to prompt p is token p; with `hint` the objective's teacher sees it:
 * its logits (N, V) are the student's with `hint` added at the answer.
 */
export function train(steps: number, random: () => number, objective: Objective = grpo(), hint = 0): number[] {
  const table = new Float32Array(PROMPTS * VOCAB);
  const prompts = Array.from({ length: B }, (_, i) => Math.floor(i / GROUP));
  return Array.from({ length: steps }, () => {
    const tokenIds = Int32Array.from(prompts, (prompt) => sample(table, prompt, random));
    const rewards = prompts.map((prompt, i) => (tokenIds[i] === prompt ? 1 : 0));
    // (N, V): every token has its prompt's row.
    const logits = new Float32Array(B * VOCAB);
    prompts.forEach((prompt, i) => {
      logits.set(table.subarray(prompt * VOCAB, (prompt + 1) * VOCAB), i * VOCAB);
    });
    const hinted = logits.map((z, at) => (at % VOCAB === prompts[Math.floor(at / VOCAB)] ? z + hint : z));
    const { gradient } = policyLossSync(
      {
        student: { logits: tensor(logits, [B, VOCAB]) },
        ...(hint !== 0 && { teacher: { logits: tensor(hinted, [B, VOCAB]) } }),
        tokenIds,
        cuSeqlens: Int32Array.from({ length: B + 1 }, (_, b) => b),
        advantages: groupAdvantages(rewards, prompts),
      },
      objective,
    );
    gradient.logits.data.forEach((g, at) => {
      table[prompts[Math.floor(at / VOCAB)]! * VOCAB + (at % VOCAB)]! -= RATE * g;
    });
    return rewards.reduce<number>((a, b) => a + b, 0) / B;
  });
}

if (process.argv[1]?.includes("examples/plain-arrays")) {
  train(40, Math.random).forEach((reward, step) => {
    if (step % 10 === 9) console.log(`step ${step + 1}: mean reward ${reward.toFixed(2)}`);
  });
}
