import { clockTime } from "../duration.js";
import { numberIn } from "../report/numbers.js";
import { diskShortage } from "../trainer/disk.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import { heldOutText } from "../trainer/prepare.js";
import type { Stage } from "../trainer/stage.js";
import { parametersText } from "../trainer/student.js";
import type { RunStart } from "../trainer/train-hooks.js";
import { createStageLine } from "./stage-line.js";

export interface Progress {
  /** Says what begins. */
  start(start: RunStart): void;
  /** What `start` does without a word: which steps are to come. */
  expect(start: Pick<RunStart, "config" | "step">): void;
  step(metrics: MetricsLine): void;
  evaluation(metrics: MetricsLine): void;
  /** What is being done; it is shown where it takes longer than a look. */
  stage(stage: Stage): void;
  /** Shows a stage that lasts; to be called every second or so. */
  tick(): void;
  /** A line that stays. */
  note(text: string): void;
  end(): void;
}

/** Where progress is shown: a terminal takes live lines, anything else plain ones. */
interface Screen {
  readonly live: boolean;
  /** At present: a window may be drawn wider or narrower. */
  readonly columns: number;
  write(text: string): void;
}

/** Standard output; `live`: lines of it may change. */
export const stdoutScreen = (live: boolean): Screen => ({
  live,
  get columns() {
    // A terminal that was never told its size has 0 columns.
    return process.stdout.columns || 80;
  },
  write: (text) => void process.stdout.write(text),
});

/** Between two looks at a stage that may last. */
export const TICK_MS = 1000;

const percent = (value: number | undefined): string => (value === undefined ? "-" : `${(100 * value).toFixed(1)}%`);

/** "reward 0.52  accuracy 52.0%  loss ..." of one step; what it does not have is left out. */
function describeStep(metrics: MetricsLine, steps: number, secondsLeft: number): string {
  const shares = (name: string, low: string, high: string): string[] => {
    const both = [numberIn(metrics, low), numberIn(metrics, high)];
    return both[0] === undefined ? [] : [`${name} ${both.map(percent).join("/")}`];
  };
  const [reward, accuracy] = [numberIn(metrics, "reward"), numberIn(metrics, "accuracy")];
  const [flat, unjudged] = [numberIn(metrics, "zeroVarianceFraction") ?? 0, numberIn(metrics, "unjudged") ?? 0];
  const parts = [
    `step ${String(metrics.step).padStart(String(steps).length)}/${steps}`,
    ...(reward === undefined ? [] : [`reward ${reward.toFixed(3)}`]),
    ...(accuracy === undefined ? [] : [`accuracy ${percent(accuracy)}`]),
    ...(flat > 0 ? [`flat groups ${Math.round(100 * flat)}%`] : []),
    ...(unjudged > 0 ? [`unjudged ${unjudged}`] : []),
    `loss ${numberIn(metrics, "loss")?.toFixed(4) ?? "-"}`,
    // The ratios of a step's only update are 1.
    ...(numberIn(metrics, "updates") === 1 ? [] : shares("clip", "ratioClippedLow", "ratioClippedHigh")),
    ...shares("credit clip", "evidenceClippedLow", "evidenceClippedHigh"),
    `${Math.round(metrics.time.tokensPerSecond ?? 0)} tok/s`,
    `${clockTime(secondsLeft)} left`,
  ];
  return parts.join("  ");
}

export function describeEvaluation(metrics: MetricsLine): string {
  const interval = `${percent(numberIn(metrics, "accuracyLow"))} to ${percent(numberIn(metrics, "accuracyHigh"))}`;
  const sampled = Object.entries(metrics)
    .filter(([name]) => /^(avg|pass)@\d+$/.test(name))
    .map(([name, value]) => `  ${name} ${percent(value as number)}`);
  const accuracy = percent(numberIn(metrics, "accuracy"));
  const loss = numberIn(metrics, "loss");
  const compared = loss === undefined ? "" : `  loss ${loss.toFixed(4)}`;
  const unjudged = numberIn(metrics, "unjudged") ?? 0;
  const without = unjudged === 0 ? "" : `  ${unjudged} of ${numberIn(metrics, "rows")} unjudged`;
  return `step ${metrics.step}: held-out accuracy ${accuracy} (95 %: ${interval})${without}${compared}${sampled.join("")}`;
}

/** That a run has no credit to give, or none for some rows; undefined: it has for all, or that cannot be known yet. */
export function missingPrivilege({ config, rows, withoutPrivileged }: RunStart): string | undefined {
  if (withoutPrivileged === null || withoutPrivileged === 0) return undefined;
  if (withoutPrivileged < rows.train) {
    return `${withoutPrivileged} of ${rows.train} training rows have no privileged text: their credit is 1`;
  }
  const { source } = config.privileged;
  const column = ["answer", "trace", "document"].includes(source)
    ? `; --set data.fields.${source}=COLUMN names it`
    : "";
  return `no training row has privileged text (privileged.source=${source}): all credit is 1, as without a teacher${column}`;
}

/** That a run goes on with other instructions of the processor than it began with; undefined: it does not. */
export function otherInstructions({ earlierInstructionSet: earlier }: RunStart): string | undefined {
  if (earlier === null) return undefined;
  return `its earlier steps were computed with ${earlier} instructions, which is the same to float32 tolerance alone (RLSD_ISA=${earlier} asks for them where the processor has them)`;
}

/** That a run goes on with other rows than its earlier steps had; undefined: it does not. */
export function changedRows({ otherRows }: RunStart): string | undefined {
  if (otherRows.length === 0) return undefined;
  const names = otherRows.map((name) => (name === "train" ? "training rows" : "held-out rows")).join(" and ");
  const meaning = otherRows.includes("eval")
    ? "accuracies before and after are of different questions"
    : "the place in the data is that in the new ones";
  return `the ${names}, or their prompts, are not those of the steps before: ${meaning}`;
}

/** Parts of a step's line, those first that are missed least. */
const LEAST = [
  / {2}credit clip \S+/,
  / {2}clip \S+/,
  / {2}\d+ tok\/s/,
  / {2}loss \S+/,
  / {2}flat groups \S+/,
  / {2}unjudged \S+/,
];

/** A step's line without what is missed least, until it fits: how long the run will take is at its end. */
const fitted = (text: string, width: number): string =>
  LEAST.reduce((line, part) => (line.length <= width ? line : line.replace(part, "")), text);

/** One line of a screen that changes, below lines that stay. */
function createLiveLine(screen: Screen, write: Screen["write"]) {
  let live = "";
  const clear = () => {
    if (live !== "") write("\r\u001b[2K");
    live = "";
  };
  const show = (text: string) => {
    clear();
    // A line that wraps could not be erased.
    live = fitted(text, screen.columns - 1).slice(0, Math.max(10, screen.columns - 1));
    write(live);
  };
  const stay = (text: string) => {
    const kept = live;
    clear();
    write(`${text}\n`);
    if (kept !== "") show(kept);
  };
  return { clear, show, stay };
}

/** What is told of a run that begins, a line each. */
function startLines(start: RunStart): string[] {
  const { config, rows, skipped, step, folder } = start;
  const left = skipped.train + skipped.eval;
  const others = [
    missingPrivilege(start),
    start.heldOutInTraining > 0 ? heldOutText(start) : undefined,
    otherInstructions(start),
    changedRows(start),
    diskShortage(start.disk),
  ];
  return [
    `${config.algorithm}: ${parametersText(start)}, ${rows.train} rows, ${rows.eval} held out${left > 0 ? `, ${left} rows left out` : ""}`,
    folder,
    ...(step > 0 ? [`going on after step ${step}`] : []),
    ...others.filter((line) => line !== undefined),
  ];
}

/** Progress for people. Without a terminal a line appears at most once a second, so that a log stays readable. */
export function createProgress(screen: Screen, now = () => performance.now()): Progress {
  let steps = 0;
  let first = 0;
  let shownAt = 0;
  let began = now();
  const stages = createStageLine(screen.live, now, (text) => (screen.live ? show(text) : write(`${text}\n`)));
  const write = (text: string) => {
    stages.told();
    screen.write(text);
  };
  const { clear, show, stay } = createLiveLine(screen, write);
  const expect: Progress["expect"] = ({ config, step }) => {
    steps = config.steps;
    first = step;
    began = now();
  };
  return {
    expect,
    start(start) {
      expect(start);
      for (const line of startLines(start)) stay(line);
    },
    step(metrics) {
      stages.leave();
      const secondsLeft = ((now() - began) / 1000 / (metrics.step - first)) * (steps - metrics.step);
      const text = describeStep(metrics, steps, secondsLeft);
      if (screen.live) show(text);
      else if (now() - shownAt >= 1000 || metrics.step === steps) {
        shownAt = now();
        write(`${text}\n`);
      }
    },
    evaluation(metrics) {
      if (stages.leave()) clear();
      stay(describeEvaluation(metrics));
    },
    stage: stages.enter,
    tick: () => stages.tick(steps),
    note: stay,
    end() {
      stages.leave();
      clear();
    },
  };
}
