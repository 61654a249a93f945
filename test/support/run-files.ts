import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type MetricsLine, readMetrics } from "../../lib/index.js";

/** The values of JSON lines. */
export const jsonLines = <T = ReturnType<typeof JSON.parse>>(text: string): T[] =>
  text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);

export async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const value of values) out.push(value);
  return out;
}

/** A run's metrics of one kind. */
export const metricsOf = async (run: string, kind: MetricsLine["kind"]): Promise<MetricsLine[]> =>
  (await all(readMetrics(run))).filter((line) => line.kind === kind);

export const weightsOf = (checkpoint: string) => readFileSync(join(checkpoint, "model", "model.safetensors"));
