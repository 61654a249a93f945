import type { MetricsLine } from "../trainer/metrics-line.js";
import type { RunConfig, SampleLine } from "../trainer/run-folder.js";
import { viewOf } from "./picture.js";

/** What one token text was given, over all samples that a teacher spoke about: one entry a sign and direction. */
export interface TokenCredit {
  readonly text: string;
  /** Of A: 1 or -1. */
  readonly sign: number;
  /** 1: it counted more, c_t > 1; -1: less. */
  readonly direction: number;
  count: number;
  /** Sum of c_t - 1. */
  excess: number;
}

/** How far weights are from 1, by where the token stands in its completion. */
interface Profile {
  /** POSITIONS means of |c_t - 1|, from the first token to the last; NaN: no token there. */
  readonly positive: readonly number[];
  readonly negative: readonly number[];
}

/** All that a report needs of a run. */
export interface RunDigest {
  readonly name: string;
  readonly config: RunConfig;
  readonly metrics: readonly MetricsLine[];
  /** Completions of one group a step, steps in order. */
  readonly samples: readonly SampleLine[];
  readonly sampleCount: number;
  /** Of `sampleCount`: those that a teacher spoke about. */
  readonly creditedCount: number;
  readonly tokens: readonly TokenCredit[];
  readonly profile: Profile;
}

export const POSITIONS = 20;
/** Completions that are kept of a step. */
const OF_A_STEP = 4;
/** A weight nearer to 1 says nothing of its token. */
const NOTICEABLE = 0.01;

const isNumber = (value: number | null | undefined): value is number => value !== null && value !== undefined;

/** c_t - 1 of the tokens that were in the loss; empty: no teacher spoke. */
function excesses(sample: SampleLine): (number | undefined)[] {
  if (sample.teacherLogProbs.length === 0) return [];
  return sample.evidenceWeights.map((weight, t) =>
    isNumber(weight) && sample.tokenAdvantages[t] !== 0 ? weight - 1 : undefined,
  );
}

/** How much there is to be seen in a sample: the sum of |c_t - 1|, or of what the student imitates the teacher by. */
export function liveliness(sample: SampleLine): number {
  const view = viewOf(sample);
  return sample.tokenIds.reduce(
    (sum, _, t) => sum + Math.abs((view.valueAt(sample, t) ?? view.neutral) - view.neutral),
    0,
  );
}

function liveliestGroup(samples: readonly SampleLine[]): SampleLine[] {
  const groups = new Map<number, SampleLine[]>();
  for (const sample of samples) groups.set(sample.group, [...(groups.get(sample.group) ?? []), sample]);
  const total = (group: readonly SampleLine[]) => group.reduce((sum, sample) => sum + liveliness(sample), 0);
  return [...groups.values()].reduce((a, b) => (total(b) > total(a) ? b : a));
}

/** The liveliest completions of a group: as many as may be shown, of either sign if there are. */
function pick(group: readonly SampleLine[]): SampleLine[] {
  const ranked = group.toSorted((a, b) => liveliness(b) - liveliness(a));
  const first = [ranked.find((s) => s.advantage > 0), ranked.find((s) => s.advantage < 0)];
  const wanted = new Set([...first, ...ranked].filter((s) => s !== undefined));
  const chosen = [...wanted].slice(0, OF_A_STEP);
  return group.filter((sample) => chosen.includes(sample));
}

/**
 * Things spread evenly over a stream of unknown length: when four times as many are held as will be kept, every other one
 * is let go.
 */
function createSpread<T>(most: number) {
  const held: T[] = [];
  let stride = 1;
  let seen = 0;
  let last: T | undefined;
  return {
    add(thing: T): void {
      if (seen % stride === 0) held.push(thing);
      last = thing;
      seen++;
      if (held.length < 4 * most) return;
      for (let i = held.length - 1; i > 0; i--) if (i % 2 === 1) held.splice(i, 1);
      stride *= 2;
    },
    /** At most `most` things, the first and the last among them. */
    end(): T[] {
      if (last === undefined) return [];
      const all = held.at(-1) === last ? held : [...held, last];
      const count = Math.min(most, all.length);
      const gap = (all.length - 1) / Math.max(1, count - 1);
      // One alone is the last: what a run has come to.
      return count === 1 ? [last] : Array.from({ length: count }, (_, i) => all[Math.round(i * gap)]!);
    },
  };
}

/** One group a step: of the steps where a teacher spoke, or of all where it never did. */
function createChoice(steps: number) {
  const credited = createSpread<SampleLine[]>(steps);
  const silent = createSpread<SampleLine[]>(steps);
  let current: SampleLine[] = [];
  const settle = () => {
    if (current.length === 0) return;
    // Of held-out rows the first, which are the same at every evaluation.
    const chosen = pick(current[0]!.heldOut ? current : liveliestGroup(current));
    (chosen.some((sample) => liveliness(sample) > 0) ? credited : silent).add(chosen);
    current = [];
  };
  return {
    add(sample: SampleLine): void {
      if (current.length > 0 && current[0]!.step !== sample.step) settle();
      current.push(sample);
    },
    end(): SampleLine[] {
      settle();
      const chosen = credited.end();
      return (chosen.length > 0 ? chosen : silent.end()).flat();
    },
  };
}

function createProfile() {
  const sums = { positive: new Float64Array(POSITIONS), negative: new Float64Array(POSITIONS) };
  const counts = { positive: new Float64Array(POSITIONS), negative: new Float64Array(POSITIONS) };
  return {
    add(sample: SampleLine, told: readonly (number | undefined)[]): void {
      const side = sample.advantage > 0 ? "positive" : "negative";
      for (const [t, excess] of told.entries()) {
        if (excess === undefined) continue;
        const place = Math.floor((t * POSITIONS) / told.length);
        sums[side][place]! += Math.abs(excess);
        counts[side][place]! += 1;
      }
    },
    end(): Profile {
      const means = (side: "positive" | "negative") => Array.from(sums[side], (sum, i) => sum / counts[side][i]!);
      return { positive: means("positive"), negative: means("negative") };
    },
  };
}

function createTokenCredit() {
  const entries = new Map<string, TokenCredit>();
  return {
    add(sample: SampleLine, told: readonly (number | undefined)[]): void {
      const sign = Math.sign(sample.advantage);
      for (const [t, excess] of told.entries()) {
        if (excess === undefined || Math.abs(excess) < NOTICEABLE) continue;
        const text = sample.tokenText[t] ?? "";
        const direction = Math.sign(excess);
        const key = `${sign} ${direction} ${text}`;
        const entry = entries.get(key) ?? { text, sign, direction, count: 0, excess: 0 };
        entry.count++;
        entry.excess += excess;
        entries.set(key, entry);
      }
    },
    end: (): TokenCredit[] => [...entries.values()],
  };
}

/** What is added up over all samples, one by one. It holds sums alone: at most one a place, and four a token of the vocabulary. */
export function createTally() {
  const profile = createProfile();
  const tokens = createTokenCredit();
  let sampleCount = 0;
  let creditedCount = 0;
  return {
    add(sample: SampleLine): void {
      sampleCount++;
      const told = excesses(sample);
      if (told.length === 0) return;
      creditedCount++;
      profile.add(sample, told);
      tokens.add(sample, told);
    },
    end(): Pick<RunDigest, "sampleCount" | "creditedCount" | "tokens" | "profile"> {
      return { sampleCount, creditedCount, tokens: tokens.end(), profile: profile.end() };
    },
  };
}

/** A tally and a choice of samples. Of these it holds those of the step that it reads, and a few of `steps` others. */
export function createDigest(steps: number) {
  const choice = createChoice(steps);
  const tally = createTally();
  return {
    add(sample: SampleLine): void {
      choice.add(sample);
      tally.add(sample);
    },
    end(): Pick<RunDigest, "samples" | "sampleCount" | "creditedCount" | "tokens" | "profile"> {
      return { samples: choice.end(), ...tally.end() };
    },
  };
}

/** Everything a report needs, from a run's lines in their order. It holds every line of metrics, and few samples. */
export async function digestRun(
  source: {
    readonly name: string;
    readonly config: RunConfig;
    readonly metrics: AsyncIterable<MetricsLine>;
    readonly samples: AsyncIterable<SampleLine>;
  },
  o: { readonly steps: number; readonly onSample?: (count: number) => void },
): Promise<RunDigest> {
  const metrics: MetricsLine[] = [];
  for await (const line of source.metrics) metrics.push(line);
  const digest = createDigest(o.steps);
  let count = 0;
  for await (const sample of source.samples) {
    digest.add(sample);
    o.onSample?.(++count);
  }
  return { name: source.name, config: source.config, metrics, ...digest.end() };
}
