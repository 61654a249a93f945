// Runs the sources as they are in a process of their own: `node test/support/ts-hook.cjs file.ts arguments`.
const { createHash } = require("node:crypto");
const { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } = require("node:fs");
const Module = require("node:module");
const { tmpdir } = require("node:os");
const path = require("node:path");

const cache = path.join(tmpdir(), "rlsd-ts-hook");
mkdirSync(cache, { recursive: true });

function compile(file) {
  const source = readFileSync(file, "utf8");
  const key = createHash("sha256").update(file).update("\0").update(source).digest("hex");
  const kept = path.join(cache, `${key}.cjs`);
  if (existsSync(kept)) return readFileSync(kept, "utf8");
  const { code } = require("@swc/core").transformSync(source, {
    filename: file,
    jsc: { parser: { syntax: "typescript" }, target: "es2023" },
    module: { type: "commonjs", ignoreDynamic: true },
  });
  writeFileSync(`${kept}.${process.pid}`, code);
  renameSync(`${kept}.${process.pid}`, kept);
  return code;
}

require.extensions[".ts"] = (module, file) => module._compile(compile(file), file);

const resolve = Module._resolveFilename;
Module._resolveFilename = function (request, parent, ...rest) {
  if (/^\.{1,2}\/.*\.js$/.test(request) && parent?.filename?.endsWith(".ts")) {
    const source = path.resolve(path.dirname(parent.filename), request.replace(/\.js$/, ".ts"));
    if (existsSync(source)) return source;
  }
  return resolve.call(this, request, parent, ...rest);
};

process.argv.splice(1, 1);
require(path.resolve(process.argv[1]));
