/** A thread of `Copier`: copies its share once a round. */
import { parentPort, workerData } from "node:worker_threads";
import { empty } from "../../tensor/tensor.js";
import { COUNT, ROUND, type Share, STOP } from "./copy-share.js";

const { words, floats } = workerData as Share;
const from = empty([floats], "f32").data.fill(1);
const to = empty([floats], "f32").data.fill(2);
parentPort?.postMessage("ready");

for (let round = 0; ; ) {
  Atomics.wait(words, ROUND, round);
  const next = Atomics.load(words, ROUND);
  if (next === STOP) break;
  if (next === round) continue;
  round = next;
  to.set(from);
  Atomics.add(words, COUNT, 1);
  Atomics.notify(words, COUNT);
}
