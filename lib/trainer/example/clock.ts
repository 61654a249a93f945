/**
 * The built-in task: a clock's hand is moved five times, each step is written out, and the last hour is the answer.
 *
 *   Clock at 7, then + 5 - 9 + 8 + 6 - 4.
 *   7 + 5 = 12 - 9 = 3 + 8 = 11 + 6 = 5 - 4 = 1
 *   Answer: 1
 *
 * The base model learned from a pupil who gets six of the eighteen moves wrong more often than not, by one hour, and who
 * carries on from the wrong hour. One wrong step spoils the answer: a reward for the answer alone cannot say which.
 */
import { permutation, randomStream } from "../random.js";

/** Moves of a problem in the data. */
export const MOVES = 8;
const HOURS = 12;

/** Hours by which the hand is moved: -9 ... -1, 1 ... 9. */
type Move = number;

export interface Problem {
  /** 1 ... 12 */
  readonly start: number;
  readonly moves: readonly Move[];
}

export type Random = () => number;

const below = (n: number, random: Random) => Math.floor(random() * n);

/** The hour after a move, 1 ... 12. */
export function hourAfter(hour: number, move: Move): number {
  return ((hour - 1 + move + 2 * HOURS) % HOURS) + 1;
}

export function drawProblem(random: Random, length = MOVES): Problem {
  const moves = Array.from({ length }, () => (1 + below(9, random)) * (random() < 0.5 ? 1 : -1));
  return { start: 1 + below(HOURS, random), moves };
}

/** A problem of 3 to MOVES moves: short ones are learned first, and help with the long ones. */
export const drawLesson = (random: Random): Problem => drawProblem(random, 3 + below(MOVES - 2, random));

/** The right hour after every move. */
export function solve({ start, moves }: Problem): number[] {
  let hour = start;
  return moves.map((move) => {
    hour = hourAfter(hour, move);
    return hour;
  });
}

const moveText = (move: Move) => ` ${move < 0 ? "-" : "+"} ${Math.abs(move)}`;

export const questionText = ({ start, moves }: Problem) => `Clock at ${start}, then${moves.map(moveText).join("")}.`;

/** A solution with these hours, right or wrong. */
export function solutionText({ start, moves }: Problem, hours: readonly number[]): string {
  const steps = moves.map((move, i) => `${moveText(move)} = ${hours[i]}`).join("");
  return `${start}${steps}\nAnswer: ${hours.at(-1)}`;
}

/** How the pupil goes wrong: a move that he has not learned ends an hour off, in the same direction every time. */
export interface Pupil {
  /** Share of right results by move; the others are 0.98. */
  readonly skill: ReadonlyMap<Move, number>;
  readonly offBy: ReadonlyMap<Move, number>;
}

const LEARNED = 0.98;
/** Of the wrong results, how many are the habitual ones; the rest are any hour. */
const HABIT = 0.85;

export function createPupil(seed: number): Pupil {
  const all = [...Array.from({ length: 9 }, (_, i) => i + 1), ...Array.from({ length: 9 }, (_, i) => -i - 1)];
  const random = randomStream(seed);
  const offBy = new Map(all.map((move) => [move, random() < 0.5 ? 1 : -1] as const));
  const order = permutation(all.length, seed);
  const unlearned = Array.from(order.subarray(0, 6), (i) => all[i]!);
  const skill = new Map(unlearned.map((move, i) => [move, 0.3 + (0.3 * i) / (unlearned.length - 1)] as const));
  return { skill, offBy };
}

function pupilStep(hour: number, move: Move, pupil: Pupil, random: Random): number {
  const right = hourAfter(hour, move);
  if (random() < (pupil.skill.get(move) ?? LEARNED)) return right;
  return random() < HABIT ? hourAfter(right, pupil.offBy.get(move)!) : 1 + below(HOURS, random);
}

/** What the pupil writes on his own. */
export function pupilHours({ start, moves }: Problem, pupil: Pupil, random: Random): number[] {
  let hour = start;
  return moves.map((move) => {
    hour = pupilStep(hour, move, pupil, random);
    return hour;
  });
}

/**
 * What the pupil writes with the reference before him: it, but for a slip in one step of ten, after which he is on his own.
 * `slips` are not to be learned: they are there so that a teacher is seen to go on after a first mistake, and so that
 * its surprise points at that mistake and not at everything that follows.
 */
export function copyingHours(
  problem: Problem,
  pupil: Pupil,
  random: Random,
): { readonly hours: number[]; readonly slips: boolean[] } {
  const reference = solve(problem);
  const slips: boolean[] = [];
  let hour = problem.start;
  let onReference = true;
  const hours = problem.moves.map((move, i) => {
    const slip = onReference && random() < 0.1;
    slips.push(slip);
    if (slip) {
      const habitual = hourAfter(hourAfter(hour, move), pupil.offBy.get(move)!);
      hour = random() < 0.7 ? habitual : 1 + below(HOURS, random);
    } else if (onReference) {
      hour = reference[i]!;
    } else {
      hour = pupilStep(hour, move, pupil, random);
    }
    onReference = hour === reference[i];
    return hour;
  });
  return { hours, slips };
}

/** A row of the data set, with the right solution as privileged text. */
export function toRow(problem: Problem, id: string) {
  const hours = solve(problem);
  return { id, question: questionText(problem), answer: String(hours.at(-1)), trace: solutionText(problem, hours) };
}
