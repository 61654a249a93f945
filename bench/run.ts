/** Runs the benches: all, or those named. Figures go to stdout, each table as it is there or (--json) as one object. */
import { readdirSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { type BenchOptions, type BenchTable, formatTable } from "./table.js";

const args = process.argv.slice(2);
const names = args.filter((a) => !a.startsWith("--"));
const asJson = args.includes("--json");
const options: BenchOptions = { quick: args.includes("--quick") };

const here = new URL(".", import.meta.url);
const known = readdirSync(here)
  .filter((file) => file.endsWith(".bench.ts"))
  .map((file) => file.replace(".bench.ts", ""));
const unknown = names.filter((name) => !known.includes(name));
if (unknown.length > 0 || args.includes("--help")) {
  console.error(`Usage: npm run bench -- [NAME ...] [--quick] [--json]\nBenches: ${known.join(", ")}`);
  process.exit(unknown.length > 0 ? 2 : 0);
}

// What else runs disturbs contestants unequally: PyTorch's threads wait for each other.
const machine = {
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  node: process.version,
  load: loadavg()[0] ?? 0,
};
const tables: (BenchTable & { bench: string })[] = [];
if (!asJson)
  console.log(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, load ${machine.load.toFixed(2)}\n`);
for (const name of names.length > 0 ? names : known) {
  const bench = (await import(new URL(`${name}.bench.ts`, here).href)) as {
    run(options: BenchOptions): AsyncIterable<BenchTable>;
  };
  console.error(`${name} ...`);
  for await (const table of bench.run(options)) {
    tables.push({ bench: name, ...table });
    if (!asJson) console.log(`${formatTable(table)}\n`);
  }
}
if (asJson) console.log(JSON.stringify({ machine, quick: options.quick, tables }, null, 2));
