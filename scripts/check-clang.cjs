// Compiles every source of the addon with clang++, where there is one: without a warning, for this machine's processor. What
// other systems' compilers say, check-targets.cjs shows.
const { spawnSync } = require("node:child_process");
const { compileSources, headers } = require("./compile-sources.cjs");

if (spawnSync("clang++", ["--version"]).status !== 0) console.log("not run: clang (no clang++)");
else if (headers === undefined) console.log("not run: clang (no headers of Node on this machine)");
else compileSources("clang++", ["clang++"]).then((passed) => process.exit(passed ? 0 : 1));
