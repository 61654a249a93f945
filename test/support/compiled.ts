import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { transformSync } from "@swc/core";

export const root = resolve(__dirname, "../..");

/** lib as JavaScript modules, for processes and workers that jest does not run. */
export interface CompiledLibrary {
  /** dist-like folder that holds index.js */
  readonly folder: string;
  /** What the process that loads it needs to find the addon. */
  readonly env: NodeJS.ProcessEnv;
  remove(): void;
}

/** Compiles lib into a fresh folder inside `build`, so that its packages are found; `edit` may change a source on the way. */
export function compileLibrary(edit: (path: string, source: string) => string = (_, s) => s): CompiledLibrary {
  mkdirSync(join(root, "build"), { recursive: true });
  const base = mkdtempSync(join(root, "build", "test-lib-"));
  writeFileSync(join(base, "package.json"), '{ "name": "rlsd", "type": "module" }\n');
  const folder = join(base, "lib");
  for (const path of readdirSync(join(root, "lib"), { recursive: true, encoding: "utf8" })) {
    if (!path.endsWith(".ts")) continue;
    const to = join(folder, path.replace(/\.ts$/, ".js"));
    mkdirSync(resolve(to, ".."), { recursive: true });
    const source = edit(path, readFileSync(join(root, "lib", path), "utf8"));
    const options = { jsc: { parser: { syntax: "typescript" }, target: "es2023" }, module: { type: "es6" } } as const;
    writeFileSync(to, transformSync(source, options).code);
  }
  const env = { ...process.env, RLSD_PREBUILD: process.env.RLSD_PREBUILD ?? root };
  return { folder, env, remove: () => rmSync(base, { recursive: true, force: true }) };
}
