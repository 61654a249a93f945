#!/usr/bin/env node
// node-gyp whose `rebuild` keeps what the last build left and make finds up to date: prebuildify asks for nothing else, and a
// build by the same commands need not be made twice. Compilers' flags that changed compile anew.
const { spawnSync } = require("node:child_process");

const nodeGyp = require.resolve("node-gyp/bin/node-gyp.js");
const [command, ...options] = process.argv.slice(2);
for (const step of command === "rebuild" ? ["configure", "build"] : [command]) {
  const { status } = spawnSync(process.execPath, [nodeGyp, step, ...options], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
