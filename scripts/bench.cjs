// npm run bench [-- NAME ...] [--quick] [--json]: see bench/run.ts
const { spawnSync } = require("node:child_process");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const register = new URL("ts-register.mjs", `file://${__dirname}/`).href;
const args = ["--expose-gc", "--import", register, path.join(root, "bench", "run.ts"), ...process.argv.slice(2)];
process.exit(spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" }).status ?? 1);
