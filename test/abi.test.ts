import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { native } from "../lib/native/load.js";
import { encodingOf } from "../lib/objectives/encode.js";
import { grpo } from "../lib/objectives/presets.js";

const root = join(__dirname, "..");
const include = join(root, "csrc/include");
const folder = mkdtempSync(join(tmpdir(), "rlsd-abi-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const cc = process.env.CC ?? "cc";
const read = (path: string): string => readFileSync(join(root, path), "utf8");

function compile(name: string, code: string, flags: string[]): string {
  const source = join(folder, `${name}.c`);
  const output = join(folder, name);
  writeFileSync(source, code);
  execFileSync(cc, [
    "-std=c99",
    "-pedantic-errors",
    "-Wall",
    "-Werror",
    `-I${include}`,
    source,
    "-o",
    output,
    ...flags,
  ]);
  return output;
}

const library = (name: string, code: string): string =>
  compile(`${name}.so`, `#include "rlsd/rlsd.h"\n${code}`, ["-shared", "-fPIC"]);

/** Names of an enum of rlsd.h without its prefix, in order. */
function enumNames(name: string, prefix: string): string[] {
  const body = new RegExp(`typedef enum ${name} \\{([^}]*)\\}`).exec(read("csrc/include/rlsd/rlsd.h"))![1]!;
  const plain = body.replace(/\/\*.*?\*\//gs, "");
  return [...plain.matchAll(/\bRLSD_(\w+)/g)].map((m) => m[1]!.replace(prefix, ""));
}

const camel = (name: string): string => name.toLowerCase().replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
const dashed = (name: string): string => name.toLowerCase().replace(/_/g, "-");

/** The strings of `const NAME = ["a", "b"]` in a TypeScript source. */
function listIn(path: string, name: string): string[] {
  const body = new RegExp(`const ${name}[^=]*= \\[([^\\]]*)\\]`).exec(read(path))![1]!;
  return [...body.matchAll(/"([^"]+)"/g)].map((m) => m[1]!);
}

describe("rlsd.h", () => {
  it("is C99 without an extension, and its structs begin with what a reader needs to trust them", () => {
    const program = compile(
      "layout",
      `#include "rlsd/rlsd.h"
#include <stdio.h>
int main(void) {
  printf("%d %d %d %d %d\\n", (int)offsetof(rlsd_context, struct_size), (int)offsetof(rlsd_objective, struct_size),
         (int)offsetof(rlsd_backend_v1, struct_size), (int)offsetof(rlsd_backend_v1, abi_version),
         (int)offsetof(rlsd_backend_v1, name));
  printf("%d %d %d\\n", (int)RLSD_STAT_COUNT, (int)sizeof(rlsd_tensor), (int)RLSD_ABI_VERSION);
  return 0;
}`,
      [],
    );
    const [offsets, sizes] = execFileSync(program, { encoding: "utf8" }).trim().split("\n");
    expect(offsets).toBe("0 0 0 4 8");
    expect(sizes).toBe(`${listIn("lib/tensor/stats.ts", "STAT_NAMES").length} 80 1`);
  });

  it("names and orders statistics as TypeScript does", () => {
    const names = enumNames("rlsd_stat", "STAT_").filter((name) => name !== "COUNT");
    expect(names.map(camel)).toEqual(listIn("lib/tensor/stats.ts", "STAT_NAMES"));
  });

  it("names and orders the choices of an objective as TypeScript does", () => {
    const encode = "lib/objectives/encode.ts";
    expect(enumNames("rlsd_surrogate", "").map(dashed)).toEqual(listIn(encode, "SURROGATES"));
    expect(enumNames("rlsd_reduction", "").map(dashed)).toEqual(listIn("lib/objectives/words.ts", "REDUCTIONS"));
    const corrections = enumNames("rlsd_importance", "").map((name) => name.replace("IMPORTANCE_", ""));
    expect(corrections.map(dashed)).toEqual(listIn(encode, "CORRECTIONS"));
    expect(enumNames("rlsd_kl_estimator", "KL_").map(dashed)).toEqual(listIn(encode, "ESTIMATORS"));
  });

  it("has one error code for each status", () => {
    const codes = listIn("lib/native/status.ts", "CODES").slice(1);
    expect(codes).toEqual(
      enumNames("rlsd_status", "")
        .slice(1)
        .map((name) => `ERR_RLSD_${name}`),
    );
  });
});

describe("an objective's encoding", () => {
  it("has as many numbers as native code decodes, each at its own place", () => {
    const decode = read("csrc/napi/objective.h");
    const count = Number(/kObjectiveFields = (\d+)/.exec(decode)![1]);
    const places = [...decode.matchAll(/o\.(\w+) = .*?f\[(\d+)\]/g)].map((m) => [m[1]!, Number(m[2])] as const);
    expect(places.map(([, at]) => at)).toEqual(places.map((_, i) => i));
    const encoding = encodingOf(grpo({ clipLow: 0.125 }));
    expect([encoding.length, places.length]).toEqual([count, count]);
    // One field changed at a time lands where native code reads the field of that name.
    const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
    const plain = encodingOf(grpo());
    const numbers = {
      dualClip: 5,
      ratioBound: 6,
      normalizer: 7,
      klCoef: 8,
      klClamp: 9,
      temperature: 0.5,
      entropyCoef: 11,
    };
    const more = {
      logitSoftcap: 12,
      creditMix: 0.75,
      sapoTemperaturePos: 14,
      sapoTemperatureNeg: 15,
      importanceMin: 0.5,
      importanceMax: 17,
    };
    for (const [name, value] of Object.entries({ ...numbers, ...more })) {
      const changed = encodingOf(grpo({ [name]: value }));
      const moved = [...changed.keys()].filter((i) => changed[i] !== plain[i]);
      expect([name, moved.map((i) => places[i]![0])]).toEqual([name, [snake(name)]]);
      expect(changed[moved[0]!]).toBe(value);
    }
  });
});

describe("the addon", () => {
  it("exports what NativeBinding says and nothing else", () => {
    const text = read("lib/native/binding.ts");
    const body = /export interface NativeBinding[^{]*\{(.*?)^\}/ms.exec(text)![1]!;
    const own = [...body.matchAll(/^ {2}(\w+)\s*[(<:]/gm)].map((m) => m[1]!);
    const extended = [...text.matchAll(/interface NativeBinding extends ([\w, ]+)/g)].flatMap((m) =>
      m[1]!.split(/,\s*/),
    );
    const files = ["engine-binding.ts", "device-binding.ts", "binding.ts"].map((file) => {
      try {
        return read(`lib/native/${file}`);
      } catch {
        return "";
      }
    });
    const inherited = extended.flatMap((name) => {
      const found = new RegExp(`export interface ${name.trim()} \\{(.*?)^\\}`, "ms").exec(files.join("\n"));
      return [...(found?.[1] ?? "").matchAll(/^ {2}(\w+)\s*[(<:]/gm)].map((m) => m[1]!);
    });
    expect([...own, ...inherited].sort()).toEqual(Object.keys(native).sort());
  });

  it("describes the CPU's table and has no backend beyond those loaded", () => {
    expect(native.describeBackend(0)).toMatchObject({ name: "cpu", abiVersion: 1, entries: { policy_loss: true } });
    for (const index of [-1, 8, 100]) expect(native.describeBackend(index)).toBeUndefined();
  });
});

describe("loading a backend", () => {
  const emptyTable = `
static const rlsd_backend_v1 table = {sizeof(rlsd_backend_v1), RLSD_ABI_VERSION, "bare"};
const rlsd_backend_v1* rlsd_backend_get(uint32_t version) { return version == RLSD_ABI_VERSION ? &table : NULL; }`;

  it("whose table is empty works, and every entry is absent", () => {
    const path = library("bare", emptyTable);
    const index = native.loadBackend(path);
    expect(index).toBeGreaterThan(0);
    expect(native.loadBackend(path)).toBe(index);
    const description = native.describeBackend(index)!;
    expect(description).toMatchObject({ name: "bare", abiVersion: 1, threads: 0 });
    expect(Object.values(description.entries).some(Boolean)).toBe(false);
  });

  it("that lacks an operation answers ERR_RLSD_UNSUPPORTED by its name", () => {
    const index = native.loadBackend(library("bare2", emptyTable));
    const f32 = (n: number) => new Float32Array(n);
    const spy = jest.spyOn(native, "policyTokens");
    const { policyLossSync } = createRequire(__filename)("../lib/index") as typeof import("../lib/index.js");
    const batch = { student: { logProbs: f32(1) }, cuSeqlens: Int32Array.of(0, 1), advantages: f32(1) };
    policyLossSync(batch, grpo());
    const args = spy.mock.calls[0]!;
    spy.mockRestore();
    args[0] = args[0].slice();
    args[0][0] = index;
    expect(native.policyTokens(...args)).toBe(enumNames("rlsd_status", "").indexOf("UNSUPPORTED"));
    expect(native.lastError()[0]).toBe("The bare backend has no policy_loss.");
  });

  it.each([
    [
      "another ABI version",
      "const rlsd_backend_v1* rlsd_backend_get(uint32_t v) { (void)v; return NULL; }",
      "does not serve ABI version 1",
    ],
    [
      "a table of another version",
      `static const rlsd_backend_v1 table = {sizeof(rlsd_backend_v1), 2u, "next"};
       const rlsd_backend_v1* rlsd_backend_get(uint32_t v) { (void)v; return &table; }`,
      "does not serve ABI version 1",
    ],
    [
      "a table that is too short",
      `static const rlsd_backend_v1 table = {64, RLSD_ABI_VERSION, "short"};
       const rlsd_backend_v1* rlsd_backend_get(uint32_t v) { (void)v; return &table; }`,
      "does not serve ABI version 1",
    ],
    ["no export", "int nothing_here = 1;", "does not export rlsd_backend_get"],
  ])("with %s says so", (name, code, words) => {
    expect(native.loadBackend(library(name.replace(/ /g, "-"), code))).toBe(-1);
    expect(native.lastError()[0]).toContain(words);
  });

  it("that is no library, or not there, says so", () => {
    const text = join(folder, "text.so");
    writeFileSync(text, "not a library");
    for (const path of [text, join(folder, "absent.so"), folder, "x".repeat(300)]) {
      expect(native.loadBackend(path)).toBe(-1);
      expect(native.lastError()[0].length).toBeGreaterThan(5);
    }
    for (const path of [undefined, 3, {}]) expect(native.loadBackend(path as never)).toBe(-1);
  });

  it("is refused beyond eight, in a process of its own", () => {
    const paths = Array.from({ length: 9 }, (_, i) => library(`many${i}`, emptyTable));
    const script = `const n = require(require("node-gyp-build").resolve(${JSON.stringify(root)}));
      console.log(${JSON.stringify(paths)}.map((p) => n.loadBackend(p)).join(), n.lastError()[0]);`;
    const child = spawnSync(process.execPath, ["-e", script], { cwd: root, encoding: "utf8" });
    expect(child.stdout.trim()).toBe("1,2,3,4,5,6,7,-1,-1 Too many backends are loaded.");
  });
});
