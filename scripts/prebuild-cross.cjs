// Builds the addon for systems that this one is not, by Zig (on the PATH, or what ZIG names), which brings their headers and
// C libraries: prebuilds/<platform>-<arch>/rlsd[.<C library>].node, where node-gyp-build looks. No part of CI.
//
//   npm run prebuild:cross                    all of them
//   npm run prebuild:cross -- win32-x64       those named
//   node scripts/prebuild-cross.cjs win32-x64 --into build/Release      one, to another folder, as Windows builds a clone
const { spawnSync } = require("node:child_process");
const { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { parseArgs } = require("node:util");
const { runs, withObjects } = require("./compile-sources.cjs");

const root = path.resolve(__dirname, "..");
const zig = process.env.ZIG ?? "zig";

// glibc of 2018: a binary loads where its C library is that old or newer.
const TARGETS = {
  "linux-x64.glibc": "x86_64-linux-gnu.2.28",
  "linux-x64.musl": "x86_64-linux-musl",
  "linux-arm64.glibc": "aarch64-linux-gnu.2.28",
  "linux-arm64.musl": "aarch64-linux-musl",
  "darwin-arm64": "aarch64-macos",
  "darwin-x64": "x86_64-macos",
  "win32-x64": "x86_64-windows-gnu",
};
const COMPILE = [
  "-O3",
  "-fvisibility=hidden",
  "-fvisibility-inlines-hidden",
  "-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
];

/** Windows resolves Node's functions when it links: a library that says node.exe has them. */
async function importLibrary(folder) {
  const { def_paths: lists } = require("node-api-headers");
  const names = Object.values(lists).flatMap((file) => readFileSync(file, "utf8").split(/\r?\n/).slice(2));
  const list = path.join(folder, "node.def");
  writeFileSync(list, ["LIBRARY node.exe", "EXPORTS", ...new Set(names.filter(Boolean))].join("\n"));
  const library = path.join(folder, "node.lib");
  const made = await runs([zig, "dlltool", "-m", "i386:x86-64", "-D", "node.exe", "-d", list, "-l", library]);
  return made ? [library] : undefined;
}

/** What a system's linker is told beyond objects; undefined: it could not be made. */
const LINK = {
  linux: () => ["-Wl,--version-script=csrc/napi/exports.map", "-ldl", "-lpthread"],
  darwin: () => ["-Wl,-undefined,dynamic_lookup"],
  win32: importLibrary,
};

/** Whether the addon was built for a target; `into`: another folder than the one of prebuilt binaries. */
async function build(target, into) {
  const [system, libc] = target.split(".");
  const command = [zig, "c++", "-target", TARGETS[target]];
  const compile = system.startsWith("linux") ? [...COMPILE, "-fPIC"] : COMPILE;
  return withObjects([...command, ...compile], async (objects, count) => {
    if (objects.length < count) return false;
    const folder = mkdtempSync(path.join(tmpdir(), "rlsd-link-"));
    try {
      const flags = await LINK[system.split("-")[0]](folder);
      const linked = path.join(folder, "rlsd.node");
      if (flags === undefined || !(await runs([...command, "-shared", "-s", "-o", linked, ...objects, ...flags])))
        return false;
      const name = libc === undefined || into !== undefined ? "rlsd.node" : `rlsd.${libc}.node`;
      const to = path.join(root, into ?? path.join("prebuilds", system), name);
      mkdirSync(path.dirname(to), { recursive: true });
      copyFileSync(linked, to);
      console.log(path.relative(root, to));
      return true;
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

async function main(args) {
  const { values, positionals: wanted } = parseArgs({
    args,
    options: { into: { type: "string" } },
    allowPositionals: true,
  });
  const unknown = wanted.filter((target) => !(target in TARGETS));
  if (unknown.length > 0) {
    console.error(`No target ${unknown.join(", ")}: expected some of ${Object.keys(TARGETS).join(", ")}.`);
    return 2;
  }
  if (spawnSync(zig, ["version"]).status !== 0) {
    console.error(`There is no ${zig}: install Zig (ziglang.org), or let ZIG name it.`);
    return 1;
  }
  const failed = [];
  for (const target of wanted.length > 0 ? wanted : Object.keys(TARGETS)) {
    if (!(await build(target, values.into))) failed.push(target);
  }
  if (failed.length > 0) console.error(`not built: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

main(process.argv.slice(2)).then((status) => process.exit(status));
