/** What a figure means nothing without: the machine it was measured on. */
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, loadavg, totalmem } from "node:os";
import { backendInfo } from "../../ops/backend-info.js";

export interface Machine {
  readonly package: string;
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly cores: number;
  /** Threads of the pool. */
  readonly poolThreads: number;
  /** Of the instruction sets that kernels are written for, those that the processor has; absent: not known here. */
  readonly instructionSets?: readonly string[];
  /** RLSD_ISA, which narrows the kernels' choice of the widest. */
  readonly instructionSetLimit?: string;
  /** All last-level caches together. */
  readonly cacheBytes: number;
  /** The system did not say: `cacheBytes` is an assumption. */
  readonly cacheAssumed: boolean;
  readonly memoryBytes: number;
  readonly availableBytes: number;
  /** Processes that wanted to run in the last minute, on average, before anything was measured. */
  readonly loadAverage: number;
}

/** Where nothing is known of it: at least what most server and desktop processors have. */
const ASSUMED_CACHE_BYTES = 64 * 2 ** 20;

const CPU_FOLDER = "/sys/devices/system/cpu";

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function folders(path: string, pattern: RegExp): string[] {
  try {
    return readdirSync(path)
      .filter((name) => pattern.test(name))
      .map((name) => `${path}/${name}`);
  } catch {
    return [];
  }
}

/** Bytes of the caches of the highest level, each counted once whatever cores share it; undefined: not told. */
export function lastLevelCache(root = CPU_FOLDER): number | undefined {
  const caches = new Map<string, { level: number; bytes: number }>();
  for (const cpu of folders(root, /^cpu\d+$/)) {
    for (const cache of folders(`${cpu}/cache`, /^index\d+$/)) {
      const size = /^(\d+)([KMG]?)$/.exec(text(`${cache}/size`) ?? "");
      const level = Number(text(`${cache}/level`));
      if (size === null || !(level > 0) || text(`${cache}/type`) === "Instruction") continue;
      const bytes = Number(size[1]) * 2 ** (10 * " KMG".indexOf(size[2] || " "));
      caches.set(`${level} ${text(`${cache}/shared_cpu_list`) ?? cpu}`, { level, bytes });
    }
  }
  const last = Math.max(...[...caches.values()].map(({ level }) => level));
  const bytes = [...caches.values()].filter(({ level }) => level === last).reduce((sum, one) => sum + one.bytes, 0);
  return bytes > 0 ? bytes : undefined;
}

/** The flags of /proc/cpuinfo that csrc/cpu/isa.cc asks for. */
const INSTRUCTION_SETS: Readonly<Record<string, readonly string[]>> = {
  avx512: ["avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma", "f16c"],
  avx2: ["avx2", "fma", "f16c"],
};

function instructionSets(): string[] | undefined {
  const flags = /^flags\s*:(.*)$/m
    .exec(text("/proc/cpuinfo") ?? "")?.[1]
    ?.trim()
    .split(" ");
  if (flags === undefined) return undefined;
  return Object.entries(INSTRUCTION_SETS)
    .filter(([, needed]) => needed.every((flag) => flags.includes(flag)))
    .map(([name]) => name);
}

export function examineMachine(version: string): Machine {
  const sets = instructionSets();
  const limit = process.env.RLSD_ISA;
  const cache = lastLevelCache();
  return {
    package: version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    poolThreads: backendInfo().cpu.threads ?? 1,
    ...(sets !== undefined && { instructionSets: sets }),
    ...(limit !== undefined && { instructionSetLimit: limit }),
    cacheBytes: cache ?? ASSUMED_CACHE_BYTES,
    cacheAssumed: cache === undefined,
    memoryBytes: totalmem(),
    // A container's limit is in the one, what other processes hold in the other.
    availableBytes: Math.min(process.availableMemory(), freemem()),
    loadAverage: loadavg()[0] ?? 0,
  };
}
