import type { Prediction } from "../trainer/predict.js";
import { oneLine } from "./one-line.js";

/** Characters of a question and of an answer. */
const MOST = 240;

const judged = ({ rollout, verdict }: Prediction) =>
  `${oneLine(rollout.text, MOST)}  (reward ${verdict.reward ?? "none"})`;

/** One held-out question that was answered wrong at first, and what became of it. */
export function createBeforeAfter(): {
  see(predictions: readonly Prediction[]): void;
  /** undefined: fewer than two evaluations, or nothing was wrong at first. */
  text(): string | undefined;
} {
  let before: Prediction | undefined;
  let after: Prediction | undefined;
  let evaluations = 0;
  return {
    see(predictions) {
      evaluations++;
      // By place: ids may be the same in several rows.
      if (evaluations === 1) before = predictions.find(({ greedy, verdict }) => greedy && verdict.reward === 0);
      else after = predictions.find(({ greedy, rollout }) => greedy && rollout.group === before?.rollout.group);
    },
    text() {
      if (before === undefined || after === undefined) return undefined;
      const question = before.rollout.prompt.example.messages.findLast((message) => message.role === "user");
      return [
        `question   ${oneLine(question?.content ?? before.rollout.prompt.text, MOST)}`,
        `  before   ${judged(before)}`,
        `  after    ${judged(after)}`,
      ].join("\n");
    },
  };
}
