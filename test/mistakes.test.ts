// What a trainer's author gets wrong first, and what the error says: what was expected, what came, how to mend it.
import { MessageChannel } from "node:worker_threads";
import {
  groupAdvantages,
  grpo,
  loadPolicy,
  type PolicyBatch,
  policyLossSync,
  rlsd,
  tensor,
  tokenLogProbsSync,
} from "../lib/index.js";

const [N, V] = [6, 10];
const numbers = (count: number) => Float32Array.from({ length: count }, (_, i) => -1 - Math.sin(i));
const logits = tensor(numbers(N * V), [N, V]);
const tokenIds = Int32Array.from({ length: N }, (_, i) => i);
const shared = { cuSeqlens: Int32Array.of(0, 3, 6), advantages: Float32Array.of(1, -1) };
const fromLogits: PolicyBatch = { ...shared, student: { logits }, tokenIds };
const fromLogProbs: PolicyBatch = { ...shared, student: { logProbs: numbers(N) } };

/** An array whose memory another thread has now. */
function sentAway(): Float32Array {
  const array = numbers(N);
  new MessageChannel().port1.postMessage(array, [array.buffer as ArrayBuffer]);
  return array;
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

const batches: [string, object, RegExp][] = [
  ["bare log-probs", { ...shared, student: numbers(N) }, /\{ logProbs \} for student but .* Say what it holds/],
  ["a bare tensor", { ...fromLogits, student: logits }, /for student but received a tensor .* Say what it holds/],
  [
    "logits without a shape",
    { ...fromLogits, student: { logits: numbers(N * V) } },
    /Make one with tensor\(data, shape\)/,
  ],
  [
    "transposed logits",
    { ...fromLogits, student: { logits: tensor(numbers(N * V), [V, N]) } },
    /N = 6 rows, one a token, for student\.logits but received .*\[10, 6\].*seems to be transposed/,
  ],
  ["a promise", { ...fromLogits, student: { logits: Promise.resolve(logits) } }, /a promise that was not awaited/],
  ["ids of 64 bits", { ...fromLogits, tokenIds: new BigInt64Array(N) }, /Int32Array\.from\(\.\.\., Number\)/],
  ["a list of advantages", { ...fromLogits, advantages: [1, -1] }, /for advantages .* Float32Array\.from/],
  [
    "lengths as offsets",
    { ...fromLogits, cuSeqlens: Int32Array.of(3, 3) },
    /cuSeqlens\[0\] to be 0 but received 3\. It has B \+ 1 offsets, not lengths: packTokens/,
  ],
  ["lists of lists", { ...fromLogProbs, teacher: { logProbs: [[-1], [-2]] } }, /one after another, as packTokens does/],
  ["another's mask", { ...fromLogits, response_mask: 1 }, /batch\.response_mask\. Did you mean completionMask\?/],
  ["a misspelt view", { ...fromLogits, student: { logit: logits } }, /field student\.logit\. Did you mean logits\?/],
  ["a proxy of a tensor", { ...fromLogits, student: { logits: new Proxy(logits, {}) } }, /but received a proxy/],
  ["a proxy as log-probs", { ...fromLogProbs, oldLogProbs: new Proxy(logits, {}) }, /oldLogProbs but received a proxy/],
  [
    "an heir of a tensor",
    { ...fromLogProbs, refLogProbs: Object.create(logits) },
    /refLogProbs but received a value of/,
  ],
  [
    "a proxy of an array",
    { ...fromLogits, tokenIds: new Proxy(tokenIds, {}) },
    /for tokenIds but received a proxy\. Pass what it stands for/,
  ],
  ["a proxy that is revoked", { ...fromLogits, tokenIds: revoked() }, /for tokenIds but received a proxy/],
  ["labels", { ...fromLogits, labels: tokenIds }, /Did you mean tokenIds\?/],
  ["Policy's teacher", { ...fromLogProbs, teacherLogProbs: 1 }, /Did you mean teacher: \{ logProbs \}\?/],
  ["log-probs sent away", { ...shared, student: { logProbs: sentAway() } }, /whose memory was transferred away/],
  ["rewards", { ...fromLogProbs, rewards: [1, 0] }, /Did you mean advantages, made by groupAdvantages/],
  [
    "memory sent away",
    { ...fromLogProbs, teacher: { logProbs: sentAway() } },
    /Float32Array\(0\) whose memory was transferred away/,
  ],
];

test.each(batches)("of a batch: %s", (_, batch, message) => {
  expect(() => policyLossSync(batch as PolicyBatch, rlsd())).toThrow(message);
  expect(() => policyLossSync(batch as PolicyBatch, rlsd())).toThrow(
    expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
  );
});

const fields: [string, RegExp][] = [
  ["lambda", /Unknown objective field lambda\. Did you mean creditMix\?/],
  ["beta", /klCoef\?/],
  ["epsilon", /Did you mean clipLow and clipHigh\?/],
  ["epsilonHigh", /clipHigh\?/],
  ["clip_ratio_c", /dualClip\?/],
  ["loss_agg_mode", /reduction\?/],
  ["temprature", /temperature\?/],
  ["xyz", /Fields: objective, clipLow/],
];

test.each(fields)("an objective's field by another trainer's name: %s", (name, message) => {
  expect(() => grpo({ [name]: 1 })).toThrow(message);
});

test("a list where an object of fields belongs", () => {
  expect(() => grpo([] as never)).toThrow(/an object of objective fields for options but received an array of 0/);
  expect(() => policyLossSync(fromLogits, rlsd(), { out: [] as never })).toThrow(/an object for .* an array of 0/);
});

test("of other calls", async () => {
  expect(() => policyLossSync(fromLogProbs, grpo as never)).toThrow(
    /received a value of type function\. Call it: grpo\(\)/,
  );
  expect(() => tokenLogProbsSync(logits as never, tokenIds)).toThrow(
    /\{ logits \} or \{ hidden, head \} for scores but/,
  );
  expect(() => groupAdvantages([1, Number.NaN], [0, 0])).toThrow(/A sample that was not judged has null/);
  expect(() => tensor(sentAway(), [2, 3])).toThrow(/data has 0: its memory was transferred away/);
  await using policy = await loadPolicy("assets/clock");
  const sequences = [{ prompt: Int32Array.of(1), completion: Int32Array.of(2, 3) }];
  const advantages = Float32Array.of(1);
  const lists = { sequences, advantages, teacherLogProbs: [numbers(2)] } as never;
  await expect(policy.accumulate(lists, rlsd())).rejects.toThrow(/one after another, as packTokens does/);
  const view = { sequences, advantages, teacher: { logProbs: numbers(2) } } as never;
  await expect(policy.accumulate(view, rlsd())).rejects.toThrow(/batch\.teacher\. Did you mean teacherLogProbs\?/);
  const prompt = [[1, 2]] as never;
  await expect(policy.generate(prompt, { maxTokens: 1, seed: 1 })).rejects.toThrow(/Int32Array\.from/);
});

test("options of sampling and of an update by another library's names", async () => {
  await using policy = await loadPolicy("assets/clock");
  const prompts = [Int32Array.of(1)];
  for (const [name, meant] of [
    ["num_return_sequences", "count"],
    ["max_new_tokens", "maxTokens"],
    ["stop", "stopStrings"],
    ["do_sample", "temperature: 0"],
  ]) {
    const options = { maxTokens: 1, seed: 1, [name!]: 1 };
    await expect(policy.generate(prompts, options)).rejects.toThrow(`options.${name}. Did you mean ${meant}?`);
  }
  await expect(policy.step({ learningRate: 1, lr: 1 } as never)).rejects.toThrow("Did you mean learningRate?");
  await expect(policy.step({ learningRate: 1, max_grad_norm: 1 } as never)).rejects.toThrow("maxGradientNorm?");
});
