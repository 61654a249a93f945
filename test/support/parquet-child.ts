// Reads Parquet files and prints what each came to: the number of its rows, or why it is none.
import { setTimeout } from "node:timers/promises";
import { readRows } from "../../lib/trainer/data/read-rows.js";

const told: unknown[] = [];
for (const file of process.argv.slice(2)) {
  try {
    let rows = 0;
    for await (const _ of readRows(file)) rows++;
    told.push(rows);
  } catch (error) {
    told.push([(error as { code?: string }).code, (error as Error).message.replace(`${file}: `, "")]);
  }
  // Whatever goes on behind an error fails now.
  await setTimeout(5);
}
process.stdout.write(JSON.stringify(told));
