import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

const root = join(__dirname, "..");

function sources(folder: string, pattern: RegExp): string[] {
  const paths = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" });
  return paths.filter((path) => pattern.test(path)).map((path) => posix.join(folder, path));
}

const read = (path: string): string => readFileSync(join(root, path), "utf8");
const matches = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map((m) => m[1]!);

/** Rooms of csrc: which of the others' headers each may include. Its own it always may. */
const NATIVE: Record<string, readonly string[]> = {
  include: [],
  core: ["rlsd"],
  system: [],
  cpu: ["rlsd", "core", "system"],
  cuda: ["rlsd", "core"],
  model: ["rlsd", "core"],
  napi: ["rlsd", "model", "system"],
  test: ["rlsd", "core", "cpu", "cuda", "model", "napi", "system"],
};
/** The one file of napi that registers the linked CPU backend, and what it needs of it: pool and instruction sets are the process's. */
const REGISTRY = { path: "csrc/napi/backends.cc", may: ["cpu/backend_cpu.h", "cpu/isa.h", "cpu/thread_pool.h"] };

const THREADS = /^(thread|mutex|condition_variable|future|pthread\.h|sched\.h|atomic)$/;
const ALLOCATION = /^(new|memory|vector|string|map|list|deque|cstdlib|stdlib\.h|unordered_map)$/;
const NODE = /^(napi\.h|node_api\.h|js_native_api\.h|uv\.h|v8\.h|node\.h)$/;
const CUDA = /^cuda/;
/** System headers that a room may not use. */
const FORBIDDEN: Record<string, readonly RegExp[]> = {
  core: [THREADS, ALLOCATION, NODE, CUDA],
  system: [NODE, CUDA],
  cpu: [NODE, CUDA],
  cuda: [NODE],
  model: [NODE, CUDA],
  napi: [CUDA],
};

describe("csrc", () => {
  const files = sources("csrc", /\.(h|hpp|c|cc|cpp|cu|cuh|inc)$/);
  const room = (path: string): string => path.split("/")[1]!;

  it("has only the rooms of the table", () => {
    expect(files.map(room).filter((name) => !(name in NATIVE))).toEqual([]);
    expect(files.length).toBeGreaterThan(20);
  });

  it.each(files)("%s includes what its room may", (path) => {
    const own = room(path);
    const text = read(path);
    for (const header of matches(text, /^\s*#\s*include\s+"([^"]+)"/gm)) {
      if (path === REGISTRY.path && REGISTRY.may.includes(header)) continue;
      const from = header.includes("/") ? header.split("/")[0]! : own;
      expect([header, from === own || (NATIVE[own] ?? []).includes(from)]).toEqual([header, true]);
    }
    for (const header of matches(text, /^\s*#\s*include\s+<([^>]+)>/gm)) {
      const allowed = own === "include" ? /^std(int|def)\.h$/.test(header) : true;
      const forbidden = (FORBIDDEN[own] ?? []).some((pattern) => pattern.test(header));
      expect([header, allowed && !forbidden]).toEqual([header, true]);
    }
  });
});

/** Rooms of lib: which rooms each may import from, besides itself and SHARED. */
const TYPESCRIPT: Record<string, readonly string[]> = {
  native: [],
  tensor: ["native"],
  objectives: [],
  ops: ["native", "tensor", "objectives"],
  gguf: [],
  policy: ["native", "tensor", "objectives", "gguf"],
  prompt: ["gguf"],
  verifiers: [],
  environments: ["verifiers"],
  trainer: ["ops", "policy", "prompt", "verifiers", "environments", "objectives", "tensor"],
  cli: ["ops", "policy", "prompt", "verifiers", "trainer", "report", "objectives", "tensor"],
};
/** Rooms from which another may import types alone. */
const TYPES_ONLY: Record<string, readonly string[]> = {
  reference: ["tensor", "objectives"],
  report: ["trainer"],
  prompt: ["policy", "verifiers"],
  verifiers: ["policy", "prompt"],
  environments: ["prompt"],
};
/** Rooms that use no package at all, or only the ones named. */
const PACKAGES: Record<string, RegExp> = {
  native: /^node-gyp-build$/,
  tensor: /^$/,
  objectives: /^$/,
  gguf: /^$/,
  ops: /^$/,
  reference: /^$/,
};

/** Files at the root of lib that any room may use; they use none. */
const SHARED = [
  "lib/check.js",
  "lib/duration.js",
  "lib/errors.js",
  "lib/exact-json.js",
  "lib/file-lines.js",
  "lib/home-path.js",
  "lib/hub-cache.js",
  "lib/leaves.js",
  "lib/on-abort.js",
  "lib/other-names.js",
  "lib/read-fault.js",
  "lib/regular-file.js",
  "lib/rounding.js",
  "lib/suggest.js",
  "lib/time-limit.js",
  "lib/typed-array.js",
  "lib/utf8.js",
  "lib/version.js",
  "lib/write-error.js",
];

interface Import {
  readonly from: string;
  readonly typeOnly: boolean;
}

function imports(text: string): Import[] {
  const statements = [...text.matchAll(/^(?:import|export)\s+(type\s+)?([^;]*?)from\s+"([^"]+)";/gms)];
  const named = statements.map(([, type, names, from]) => {
    const inner = /^\{(.*)\}\s*$/s.exec(names!.trim())?.[1];
    const parts = inner?.split(",").filter((part) => part.trim() !== "") ?? [""];
    return { from: from!, typeOnly: type !== undefined || parts.every((part) => part.trim().startsWith("type ")) };
  });
  const bare = matches(text, /^import\s+"([^"]+)";/gm).concat(matches(text, /\bimport\(\s*"([^"]+)"\s*\)/g));
  return [...named, ...bare.map((from) => ({ from, typeOnly: false }))];
}

describe("lib", () => {
  const files = sources("lib", /\.[cm]?ts$/);

  it.each(files)("%s imports what its room may", (path) => {
    if (path === "lib/index.ts" || path === "lib/interop.ts") return;
    const own = path.split("/")[1]!;
    for (const { from, typeOnly } of imports(read(path))) {
      if (from.startsWith("node:")) continue;
      if (!from.startsWith(".")) {
        expect([from, PACKAGES[own]?.test(from) ?? true]).toEqual([from, true]);
        continue;
      }
      const target = posix.join(posix.dirname(path), from);
      const room = target.split("/")[1]!;
      const shared = SHARED.includes(target) || room === own;
      const allowed =
        shared || (TYPESCRIPT[own] ?? []).includes(room) || (typeOnly && (TYPES_ONLY[own] ?? []).includes(room));
      expect([`${from}${typeOnly ? " (types)" : ""}`, allowed]).toEqual([`${from}${typeOnly ? " (types)" : ""}`, true]);
    }
  });

  it("has a rule for every room", () => {
    const rooms = new Set(files.filter((path) => path.split("/").length > 2).map((path) => path.split("/")[1]!));
    expect([...rooms].filter((name) => !(name in TYPESCRIPT) && !(name in TYPES_ONLY))).toEqual([]);
  });

  it("has no module that waits for itself to be loaded", () => {
    const needs = new Map(
      files.map((path) => [
        path.replace(/\.ts$/, ".js"),
        imports(read(path))
          .filter(({ from, typeOnly }) => from.startsWith(".") && !typeOnly)
          .map(({ from }) => posix.join(posix.dirname(path), from)),
      ]),
    );
    const free = new Set<string>();
    for (let before = -1; before < free.size; ) {
      before = free.size;
      for (const [path, needed] of needs) if (needed.every((one) => free.has(one))) free.add(path);
    }
    expect([...needs.keys()].filter((path) => !free.has(path))).toEqual([]);
  });

  it("exports nothing by default and prints nothing outside the command line", () => {
    for (const path of files) {
      const text = read(path);
      expect([path, /^export default/m.test(text)]).toEqual([path, false]);
      if (!path.startsWith("lib/cli/")) expect([path, /\bconsole\./.test(text)]).toEqual([path, false]);
    }
  });
});

describe("test and bench", () => {
  it("reach native only through the tests of the boundary itself", () => {
    const mayUse = /^test\/(abi|native-|model-|engine|workspace|backend)/;
    const files = [...sources("test", /\.ts$/), ...sources("bench", /\.ts$/)].filter((path) => !mayUse.test(path));
    const users = files.filter((path) =>
      imports(read(path)).some(({ from, typeOnly }) => !typeOnly && from.includes("lib/native/")),
    );
    expect(users.filter((path) => path.startsWith("test/") && !path.includes("support"))).toEqual([]);
  });
});
