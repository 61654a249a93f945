// Module hooks: run the project's TypeScript as it stands, for benches, examples and the processes that tests start. What a
// source was compiled to is kept in build/ts, as a command loads some two hundred of them.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const kept = fileURLToPath(new URL("../build/ts/", import.meta.url));
const options = {
  jsc: { parser: { syntax: "typescript" }, target: "es2023" },
  module: { type: "es6" },
  sourceMaps: "inline",
};
const salt = JSON.stringify([require("@swc/core/package.json").version, options]);

const hash = (...parts) =>
  parts.reduce((all, part) => all.update(part).update("\0"), createHash("sha256")).digest("hex");

/** The source as JavaScript; what it was compiled to last, if that was this text by this compiler. */
function compile(filename, source) {
  const current = hash(salt, source);
  const file = join(kept, `${hash(filename).slice(0, 32)}.json`);
  try {
    const [of, code] = JSON.parse(readFileSync(file, "utf8"));
    if (of === current) return code;
  } catch {
    // There is none yet.
  }
  const { code } = require("@swc/core").transformSync(source, { ...options, filename });
  mkdirSync(kept, { recursive: true });
  const fresh = `${file}.${process.pid}`; // another process may read the file at any time
  writeFileSync(fresh, JSON.stringify([current, code]));
  renameSync(fresh, file);
  return code;
}

export async function resolve(specifier, context, next) {
  if (/^\.{1,2}\//.test(specifier) && specifier.endsWith(".js")) {
    const url = new URL(specifier.replace(/\.js$/, ".ts"), context.parentURL);
    if (existsSync(url)) return { url: url.href, format: "module", shortCircuit: true };
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return next(url, context);
  const filename = fileURLToPath(url);
  return { format: "module", source: compile(filename, readFileSync(filename, "utf8")), shortCircuit: true };
}
