import type { Prediction } from "../trainer/predict.js";
import type { Success } from "../trainer/success.js";
import { oneLine } from "./one-line.js";

/** Characters of a question and of an answer. */
const MOST = 240;

const judged = ({ rollout, verdict }: Prediction) =>
  `${oneLine(rollout.text, MOST)}  (reward ${verdict.reward ?? "none"})`;

/** What became of the greedy answers to held-out questions between the first evaluation and the last. */
export interface AnswerChanges {
  /** Judged both times. */
  readonly rows: number;
  /** Wrong at first, right at last; and the other way round. */
  readonly gained: number;
  readonly lost: number;
  /** As right or wrong as before, in other words. */
  readonly reworded: number;
}

/** Of two answers to a question: whether they are in other words. */
const isReworded = ({ before, after }: Readonly<Record<"before" | "after", Prediction>>): boolean =>
  before.rollout.text !== after.rollout.text;

const rewarded: Success = ({ reward }) => (reward ?? 0) >= 1;

type Answers = ReadonlyMap<number, Prediction>;

/** By place: ids may be the same in several rows. */
const greedyOf = (predictions: readonly Prediction[]): Answers =>
  new Map(predictions.filter(({ greedy }) => greedy).map((one) => [one.rollout.group, one]));

/** Held-out questions before and after training: how many were won and lost, and one of them in words. */
export function createBeforeAfter(): {
  /** Without `isRight` a reward of 1 is right. */
  see(predictions: readonly Prediction[], isRight?: Success): void;
  /** undefined: fewer than two evaluations. */
  changes(): AnswerChanges | undefined;
  /**
   * One that was answered wrong at first, or, where more were lost than won, one that was lost, and of those one whose answer
   * is another, if any; undefined: there is none.
   */
  text(): string | undefined;
} {
  let first: Answers | undefined;
  let last: Answers | undefined;
  let right: Success = rewarded;
  const pairs = () =>
    [...(first ?? [])].flatMap(([group, before]) => {
      const after = last?.get(group);
      if (after === undefined || before.verdict.reward === null) return [];
      return [{ before, after, was: right(before.verdict), is: right(after.verdict) }];
    });
  const changes = () => {
    if (last === undefined) return undefined;
    const both = pairs().filter(({ after }) => after.verdict.reward !== null);
    return {
      rows: both.length,
      gained: both.filter(({ was, is }) => !was && is).length,
      lost: both.filter(({ was, is }) => was && !is).length,
      reworded: both.filter((pair) => pair.was === pair.is && isReworded(pair)).length,
    };
  };
  return {
    see(predictions, isRight = rewarded) {
      right = isRight;
      if (first === undefined) first = greedyOf(predictions);
      else last = greedyOf(predictions);
    },
    changes,
    text() {
      const { gained = 0, lost = 0 } = changes() ?? {};
      const wanted = (pair: ReturnType<typeof pairs>[number]) =>
        lost > gained ? pair.was && !pair.is && pair.after.verdict.reward !== null : !pair.was;
      const likely = pairs().filter(wanted);
      const shown = likely.find((pair) => pair.was !== pair.is || isReworded(pair)) ?? likely[0];
      if (shown === undefined) return undefined;
      const { prompt } = shown.before.rollout;
      const question = prompt.example.messages.findLast((message) => message.role === "user");
      return [
        `question   ${oneLine(question?.content ?? prompt.text, MOST)}`,
        `  before   ${judged(shown.before)}`,
        `  after    ${judged(shown.after)}`,
      ].join("\n");
    },
  };
}
