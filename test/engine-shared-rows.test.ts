import { createPolicy } from "../lib/index.js";
import { randomStream } from "../lib/trainer/random.js";

test("scores of completions that share a prompt are, bit for bit, those of each one alone", async () => {
  const policy = await createPolicy(
    { vocabSize: 40, hiddenSize: 32, numLayers: 2, numHeads: 4, numKvHeads: 2, maxLength: 64 },
    { seed: 4, deviation: 0.3 },
  );
  const random = randomStream(5);
  const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(random() * 40));
  const [long, short] = [ids(20), ids(3)];
  const twin = ids(9);
  const requests = [
    { prompt: long, completion: ids(7) },
    { prompt: long, completion: ids(1) },
    // The same completion twice, and one that goes on from another: every row, and some rows, shared.
    { prompt: long, completion: twin },
    { prompt: long, completion: twin },
    { prompt: long, completion: Int32Array.of(...twin, ...ids(4)) },
    { prompt: long, completion: new Int32Array(0) },
    { prompt: short, completion: ids(5) },
    { prompt: Int32Array.of(...short, 7), completion: ids(5) },
  ];
  const together = await policy.score(requests, { temperature: 0.7 });
  for (const [i, request] of requests.entries()) {
    const [alone] = await policy.score([request], { temperature: 0.7 });
    expect([i, ...together[i]]).toEqual([i, ...alone]);
  }
  await policy.dispose();
});
