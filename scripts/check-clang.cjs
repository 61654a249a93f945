// Compiles every source of the addon with clang++, where there is one: without a warning, for this machine's processor. Clang
// warns before it optimises. What other systems' compilers say, prebuild-cross.cjs shows.
const { spawnSync } = require("node:child_process");
const { compileSources } = require("./compile-sources.cjs");

if (spawnSync("clang++", ["--version"]).status !== 0) console.log("not run: clang (no clang++)");
else compileSources("clang++", ["clang++", "-O0"]).then((passed) => process.exit(passed ? 0 : 1));
