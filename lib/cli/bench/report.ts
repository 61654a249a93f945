/** The report for people. */
import { tableLines } from "../table.js";
import type { Figure } from "./figure.js";
import type { Level } from "./options.js";
import type { Report } from "./run.js";
import { gib } from "./size.js";
import type { Spread } from "./statistics.js";

interface Column {
  readonly title: string;
  readonly left?: true;
  cell(figure: Figure): string;
}

/** Three digits: no timing here is good for more. */
function digits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value.toPrecision(3);
}

const optional = (value: number | undefined): string => (value === undefined ? "-" : digits(value));

const rangeText = ({ lowerQuartile, upperQuartile }: Spread, scale: number): string =>
  `${digits(scale * lowerQuartile)} to ${digits(scale * upperQuartile)}`;

/** One mark for every ten percent, at most ten; nothing where there is no ceiling. */
export function bar(percent: number | undefined): string {
  if (percent === undefined) return "";
  const marks = Math.max(0, Math.min(10, Math.round(percent / 10)));
  return `[${"#".repeat(marks)}${".".repeat(10 - marks)}]`;
}

const CALL: Column = { title: "call", left: true, cell: ({ call }) => call };
const VARIANT: Column = {
  title: "how",
  left: true,
  cell: ({ variant, rows }) => (rows === undefined ? variant : `${variant}; ${rows}`),
};
const DTYPE: Column = { title: "dtype", left: true, cell: ({ dtype }) => dtype ?? "-" };
const MS: Column = { title: "ms", cell: ({ timeMilliseconds }) => digits(timeMilliseconds.median) };
const MS_RANGE: Column = { title: "quartiles", cell: ({ timeMilliseconds }) => rangeText(timeMilliseconds, 1) };
const ROUNDS: Column = { title: "rounds", cell: ({ rounds }) => String(rounds) };
const PER_TOKEN: Column = { title: "ns/token", cell: ({ nanosecondsPerToken }) => digits(nanosecondsPerToken) };

const COLUMNS: Readonly<Record<Level, readonly Column[]>> = {
  logprob: [
    CALL,
    VARIANT,
    { title: "tokens", cell: ({ tokens }) => String(tokens) },
    { title: "us", cell: ({ timeMilliseconds }) => digits(1000 * timeMilliseconds.median) },
    { title: "quartiles", cell: ({ timeMilliseconds }) => rangeText(timeMilliseconds, 1000) },
    PER_TOKEN,
    ROUNDS,
  ],
  logits: [
    CALL,
    VARIANT,
    DTYPE,
    MS,
    MS_RANGE,
    { title: "GB/s", cell: ({ gigabytesPerSecond }) => optional(gigabytesPerSecond) },
    { title: "copy GB/s", cell: ({ copy }) => optional(copy?.gigabytesPerSecond) },
    { title: "% of copy", cell: ({ percentOfCopy }) => percentOfCopy?.toFixed(0) ?? "-" },
    { title: "", left: true, cell: ({ percentOfCopy }) => bar(percentOfCopy) },
    ROUNDS,
  ],
  head: [
    CALL,
    VARIANT,
    DTYPE,
    MS,
    MS_RANGE,
    { title: "GFLOP/s", cell: ({ gigaflopsPerSecond }) => optional(gigaflopsPerSecond) },
    ROUNDS,
  ],
};

const COPY_LEGEND = [
  "GB/s: bytes that must move (loss: student and teacher read, gradient written, 3 x N x V elements; scores: one read)",
  "over the median time. copy: read and written by a plain copy on as many threads, in turn with the call. Scores write",
  "nothing, so that they may pass a copy. Rows in cache: scores without memory. Where they are about as fast as scores",
  "of all rows, exponentials are the limit there, and memory is not.",
];

const LEGEND: Readonly<Record<Level, readonly string[]>> = {
  logprob: [
    "us: one call, median; rlsd() with a teacher. With 32 tokens it is what a call costs before it computes anything much.",
  ],
  logits: COPY_LEGEND,
  head: [
    "GFLOP/s: of the products (loss: 8 N V H operations, scores: 2 N V H) over the median time, softmax included. The",
    "package has no plain product to compare with: no ceiling is claimed.",
  ],
};

const DEVICE_LEGEND = [
  "By the wall clock, calls enqueued together and awaited together: what a trainer sees. Times of the device's own events,",
  "and the share of its copy, are what `npm run gpu:check` measures in a checkout of the project.",
];

const TITLES: Readonly<Record<Level, string>> = { logprob: "Log-probs", logits: "Logits", head: "LM head" };

function titleOf({ level, tokens, vocab, hidden, threads, device }: Figure): string {
  const size = [
    ...(level === "logprob" ? [] : [`N = ${tokens}`]),
    ...(vocab === undefined ? [] : [`V = ${vocab}`]),
    ...(hidden === undefined ? [] : [`H = ${hidden}`]),
    threads === undefined ? device : `${threads} ${threads === 1 ? "thread" : "threads"}`,
  ];
  return `${TITLES[level]}: ${size.join(", ")}`;
}

/** One level's figures as an aligned table, with what its columns mean. */
export function levelText(figures: readonly Figure[]): string {
  const [first] = figures;
  if (first === undefined) return "";
  const columns = COLUMNS[first.level];
  const rows = [columns.map(({ title }) => title), ...figures.map((one) => columns.map(({ cell }) => cell(one)))];
  const lines = tableLines(rows, (i) => columns[i]?.left === undefined);
  const legend = first.device === "cpu" ? LEGEND[first.level] : DEVICE_LEGEND;
  return [titleOf(first), ...lines, ...legend.map((line) => `  ${line}`), ""].join("\n");
}

/** Which machine, before anything is measured. */
export function machineText({ machine, device, method }: Pick<Report, "machine" | "device" | "method">): string {
  const sets = machine.instructionSets?.[0];
  const limit = machine.instructionSetLimit === undefined ? "" : ` (RLSD_ISA=${machine.instructionSetLimit})`;
  const cache = `${(machine.cacheBytes / 2 ** 20).toFixed(0)} MiB last-level cache`;
  const cpu = [
    machine.cpu,
    `${machine.cores} ${machine.cores === 1 ? "core" : "cores"}`,
    ...(sets === undefined && limit === "" ? [] : [`${sets ?? ""}${limit}`.trim()]),
    `${cache}${machine.cacheAssumed ? " (assumed)" : ""}`,
    `${gib(machine.availableBytes)} free of ${gib(machine.memoryBytes)}`,
    `load ${machine.loadAverage.toFixed(2)}`,
  ];
  const quick = method.quick ? "; --quick: few rounds" : "";
  return [
    `rlsd ${machine.package}, Node ${machine.node}, ${machine.platform}`,
    cpu.join(", "),
    ...(device === undefined ? [] : [`${device.name}, ${gib(device.memoryBytes)} free`]),
    `Medians of rounds in which call and ceiling take turns${quick}. ${gib(method.plannedBytes)} are used.`,
    "",
  ].join("\n");
}

export function endText({ notes, seconds }: Report): string {
  return [...notes.map((note) => `* ${note}`), `${seconds.toFixed(1)} s`].join("\n");
}
