/** The whole measurement: sizes, figures, and what has to be said about them. */
import { backendInfo } from "../../ops/backend-info.js";
import { empty } from "../../tensor/tensor.js";
import { bytesPerElement } from "./data.js";
import { benchDeviceLogits, benchDeviceLogProbs } from "./device-levels.js";
import type { Figure } from "./figure.js";
import { benchHead, benchLogits, benchLogProbs } from "./levels.js";
import type { Machine } from "./machine.js";
import type { BenchOptions, Level } from "./options.js";
import { makePlan, type Plan } from "./plan.js";
import { unsteadiness } from "./statistics.js";
import type { Pace } from "./timing.js";

export interface Report {
  readonly machine: Machine;
  /** Name and memory of the device, where one was asked for. */
  readonly device?: { readonly name: string; readonly memoryBytes: number };
  readonly method: {
    readonly clock: string;
    readonly rounds: string;
    readonly spread: string;
    readonly ceiling: string;
    readonly quick: boolean;
    readonly threads?: number;
    readonly plannedBytes: number;
  };
  readonly figures: readonly Figure[];
  readonly notes: readonly string[];
  readonly seconds: number;
}

/** Quartiles of the copy further apart than this share of its median: the machine does other things too. */
const NOISY = 0.15;

const CEILING = {
  cpu:
    "logits: a plain copy by as many threads, of buffers as large as the student's logits, in turn with the call; head and " +
    "log-probs: none",
  device: "none: event timing, and a copy on the device, are what npm run gpu:check measures",
};

function methodOf(options: BenchOptions, plan: Plan): Report["method"] {
  const cpu = options.device === "cpu";
  return {
    clock: cpu ? "wall clock around each call" : "wall clock around calls that are enqueued and awaited together",
    rounds: "call and ceiling in turn, after rounds of warm-up that do not count",
    spread: "median, and quartiles of all rounds",
    ceiling: cpu ? CEILING.cpu : CEILING.device,
    quick: options.quick,
    ...(cpu && { threads: options.threads }),
    plannedBytes: plan.bytes,
  };
}

function loadNotes({ loadAverage, cores }: Machine): string[] {
  if (loadAverage < cores / 2) return [];
  const load = `${loadAverage.toFixed(1)} processes on ${cores} ${cores === 1 ? "core" : "cores"}`;
  return [`Before anything was measured ${load} wanted to run: they may have taken a part of every time here.`];
}

function noisyNotes(figures: readonly Figure[]): string[] {
  const spreads = figures.flatMap(({ copy }) => (copy === undefined ? [] : [unsteadiness(copy.timeMilliseconds)]));
  const worst = Math.max(0, ...spreads);
  if (worst <= NOISY) return [];
  return [
    `This machine was noisy: the quartiles of a copy lie up to ${(100 * worst).toFixed(0)}% of its median apart. ` +
      "Another process, or a neighbour of a virtual machine, may be the reason.",
  ];
}

function cacheNotes({ logits }: Plan, { cacheBytes, cacheAssumed }: Machine, options: BenchOptions): string[] {
  if (logits === undefined || options.device !== "cpu") return [];
  const narrow = Math.min(...logits.dtypes.map(bytesPerElement));
  const times = (logits.tokens * logits.vocab * narrow) / cacheBytes;
  const assumed = cacheAssumed ? ["The size of the last-level cache is not told here: an assumption."] : [];
  if (times >= 1) return assumed;
  const share = `${(100 * times).toPrecision(2)}% of the last-level cache`;
  return [...assumed, `A logits tensor is as small as ${share}: rates may be the cache's, and the copy's as well.`];
}

async function* levelFigures(
  level: Level,
  plan: Plan,
  options: BenchOptions,
  cacheBytes: number,
  pace: Pace,
): AsyncGenerator<Figure> {
  const { device, quick, threads } = options;
  const { logprob, logits, head } = plan;
  if (device !== "cpu") {
    if (level === "logprob" && logprob !== undefined)
      yield* benchDeviceLogProbs(logprob.tokens, { device, quick, pace });
    if (level === "logits" && logits !== undefined) yield* benchDeviceLogits(logits, { device, quick, pace });
    return;
  }
  const terms = { threads, quick, cacheBytes, pace };
  if (level === "logprob" && logprob !== undefined) yield* benchLogProbs(logprob.tokens, terms);
  if (level === "logits" && logits !== undefined) yield* benchLogits(logits, terms);
  if (level === "head" && head !== undefined) yield* benchHead(head, terms);
}

/** @throws RlsdError ERR_RLSD_BACKEND_UNAVAILABLE, with the reason, where the device cannot be used */
function findDevice(device: string): Report["device"] {
  if (device === "cpu") return undefined;
  empty([1], "f32", device)[Symbol.dispose]();
  const found = backendInfo().cuda.devices?.[Number(device.slice("cuda:".length))];
  return { name: found?.name ?? device, memoryBytes: found?.freeBytes ?? found?.memoryBytes ?? 0 };
}

interface RunHooks {
  readonly pace: Pace;
  /** Before anything is measured. */
  onStart?(report: Pick<Report, "machine" | "device" | "method">): void;
  /** A level is done. */
  onLevel?(figures: readonly Figure[]): void;
}

export async function runBench(options: BenchOptions, machine: Machine, hooks: RunHooks): Promise<Report> {
  const begin = performance.now();
  const device = findDevice(options.device);
  const availableBytes = device?.memoryBytes ?? machine.availableBytes;
  const resources = { availableBytes, cacheBytes: machine.cacheBytes, onDevice: device !== undefined };
  const plan = makePlan(options, resources);
  const head = { machine, ...(device !== undefined && { device }), method: methodOf(options, plan) };
  hooks.onStart?.(head);
  const figures: Figure[] = [];
  for (const level of options.levels) {
    const ofLevel: Figure[] = [];
    for await (const one of levelFigures(level, plan, options, machine.cacheBytes, hooks.pace)) ofLevel.push(one);
    hooks.onLevel?.(ofLevel);
    figures.push(...ofLevel);
  }
  const notes = [...loadNotes(machine), ...noisyNotes(figures), ...cacheNotes(plan, machine, options)];
  return { ...head, figures, notes, seconds: (performance.now() - begin) / 1000 };
}
