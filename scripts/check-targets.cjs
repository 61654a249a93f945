// Compiles every source of the addon for systems that this one is not, with the cross-compilers that are here: Zig, which
// brings the headers of macOS and musl (on the PATH, or what ZIG names), and GCC for arm64. It shows that they compile without
// a warning, not that they run. No part of CI.
const { spawnSync } = require("node:child_process");
const { compileSources, headers } = require("./compile-sources.cjs");

const zig = process.env.ZIG ?? "zig";
const zigTarget = (target) => ({ label: target, command: [zig, "c++", "-target", target] });
const targets = [
  ...["aarch64-macos", "x86_64-macos", "aarch64-linux-musl", "x86_64-linux-musl"].map(zigTarget),
  { label: "aarch64-linux-gnu", command: ["aarch64-linux-gnu-g++"] },
];

async function check() {
  let failures = 0;
  for (const { label, command } of targets) {
    const version = command[0] === zig ? "version" : "--version";
    if (spawnSync(command[0], [version]).status !== 0) console.log(`not run: ${label} (no ${command[0]})`);
    else if (!(await compileSources(label, command))) failures++;
  }
  process.exit(failures === 0 ? 0 : 1);
}

if (headers === undefined) console.log("not run: other targets (no headers of Node on this machine)");
else check();
