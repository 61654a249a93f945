import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { messageOf, RlsdError } from "../errors.js";
import { completionsOf, finishOf } from "../trainer/data/completions.js";
import { valueAt } from "../trainer/data/fields.js";
import { findDataFiles } from "../trainer/data/find-files.js";
import { readRows } from "../trainer/data/read-rows.js";
import { createVerifier, listVerifiers, type VerifierSpec } from "../verifiers/registry.js";
import { startVerifier } from "../verifiers/start.js";
import type { Sample, Verdict, Verifier } from "../verifiers/verifier.js";
import { collect, EXIT, jsonLine, readable } from "./command.js";
import { meanwhile } from "./slowly.js";

export interface ScoreOptions {
  /** Files, folders or patterns as for training: rows with `completion` (a text) or `completions` (a list of texts), and what the verifier reads. */
  readonly data: readonly string[];
  /** A verifier's name, its JSON, or `@file` with its JSON. */
  readonly verifier: string;
  /** `name=column`: where the file's columns have other names. Dots reach into objects. */
  readonly field?: readonly string[];
  /** Print for every completion what was extracted, from where, and what it was compared with. */
  readonly explain?: boolean;
  /** One JSON object a line: each completion's verdict, then the summary. */
  readonly json?: boolean;
}

interface Io {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
}

interface Scored {
  /** `file:line`. */
  readonly where: string;
  readonly id: string;
  readonly completion: number;
  readonly verdict: Verdict;
}

interface Summary {
  rows: number;
  completions: number;
  judged: number;
  undecided: number;
  rewardMean: number | null;
  reasons: Record<string, number>;
}

/** Completions that are being judged at the same time: enough for every worker, few enough to hold. */
const IN_FLIGHT = 256;

function readSpec(given: string): VerifierSpec {
  const text = given.startsWith("@") ? readText(given.slice(1)) : given;
  if (!text.trim().startsWith("{")) return text.trim();
  try {
    return JSON.parse(text) as VerifierSpec;
  } catch (error) {
    const message = `Expected --verifier to be a name or JSON but it does not parse: ${String(error)}.`;
    throw new RlsdError("ERR_RLSD_USAGE", message, { cause: error });
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new RlsdError("ERR_RLSD_USAGE", `Cannot read ${path}: ${String(error)}.`, { cause: error });
  }
}

function readFields(given: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    given.map((one) => {
      const at = one.indexOf("=");
      if (at > 0 && at < one.length - 1) return [one.slice(0, at), one.slice(at + 1)];
      throw new RlsdError("ERR_RLSD_USAGE", `Expected --field name=column but received "${one}".`);
    }),
  );
}

const badRow = (where: string, message: string) => new RlsdError("ERR_RLSD_DATA", `${where}: ${message}`);

interface Place {
  readonly where: string;
  readonly row: Record<string, unknown>;
}

/** The rows of the files with the fields in place that were named otherwise. */
async function* namedRows(files: readonly string[], fields: ReadonlyMap<string, string>): AsyncGenerator<Place> {
  for (const file of files) {
    for await (const { where, row, problem } of readRows(file)) {
      if (row === undefined) throw badRow(where, `${problem ?? "unreadable"}.`);
      const named: Record<string, unknown> = { ...row };
      for (const [name, column] of fields) {
        const value = valueAt(row, column);
        if (value === undefined)
          throw badRow(where, `there is no column "${column}", which --field ${name}=${column} names.`);
        named[name] = value;
      }
      yield { where, row: named };
    }
  }
}

/** The completions of one row as samples. */
function samplesOf({ where, row }: Place): Sample[] {
  const id =
    typeof row.id === "string" || typeof row.id === "number" ? String(row.id) : where.slice(where.lastIndexOf(":") + 1);
  const prompt = typeof row.prompt === "string" ? row.prompt : "";
  try {
    return completionsOf(row).map((completion) => ({ id, prompt, completion, finish: finishOf(row), row }));
  } catch (error) {
    throw badRow(where, messageOf(error));
  }
}

/** Reads all files once, so that a row that cannot be judged stops the command before it prints anything. */
async function checkRows(
  files: readonly string[],
  fields: ReadonlyMap<string, string>,
  verifier: Verifier,
): Promise<number> {
  let completions = 0;
  for await (const place of namedRows(files, fields)) {
    completions += samplesOf(place).length;
    try {
      verifier.check?.(place.row);
    } catch (error) {
      throw badRow(place.where, messageOf(error));
    }
  }
  if (completions === 0) throw new RlsdError("ERR_RLSD_DATA", `${files.join(", ")} holds no completions.`);
  return completions;
}

/** Verdicts in the order of the files, with at most IN_FLIGHT samples on their way. */
async function* judgeAll(
  files: readonly string[],
  fields: ReadonlyMap<string, string>,
  verifier: Verifier,
  signal: AbortSignal,
): AsyncGenerator<Scored> {
  const running: Promise<Scored>[] = [];
  for await (const place of namedRows(files, fields)) {
    const { where } = place;
    for (const [completion, sample] of samplesOf(place).entries()) {
      const scored = verifier.verify(sample, signal).then((verdict) => ({ where, id: sample.id, completion, verdict }));
      scored.catch(() => {});
      running.push(scored);
      if (running.length >= IN_FLIGHT) yield await running.shift()!;
    }
  }
  for (const scored of running) yield await scored;
}

const shown = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));

function explain({ where, id, completion, verdict }: Scored): string {
  const { extracted, from, expected, ...rest } = verdict.detail ?? {};
  const reason = verdict.reason === undefined ? "" : ` (${verdict.reason})`;
  const reward = verdict.reward === null ? "undecided" : `reward ${verdict.reward}`;
  const lines = [`${where}, id ${id}, completion ${completion}: ${reward}${reason}`];
  if (extracted !== undefined)
    lines.push(`  extracted  ${shown(extracted)}${from === undefined ? "" : `   from: ${shown(from)}`}`);
  if (expected !== undefined) lines.push(`  expected   ${shown(expected)}`);
  for (const [name, value] of Object.entries(rest)) lines.push(`  ${name.padEnd(10)} ${shown(value)}`);
  return lines.join("\n");
}

function describe(summary: Summary): string {
  const mean = summary.rewardMean === null ? "none" : summary.rewardMean.toFixed(4);
  const lines = [`completions  ${summary.completions}`, `mean reward  ${mean} over ${summary.judged} judged`];
  if (summary.undecided > 0) lines.push(`undecided    ${summary.undecided}`);
  for (const [reason, count] of Object.entries(summary.reasons).sort((a, b) => b[1] - a[1])) {
    lines.push(`  ${reason.padEnd(16)} ${count}`);
  }
  return lines.join("\n");
}

/** Adds one verdict to the summary; returns the new sum of rewards. */
function count(summary: Summary, sum: number, { reward, reason }: Verdict): number {
  summary.completions++;
  if (reward === null) summary.undecided++;
  else summary.judged++;
  if (reason !== undefined) summary.reasons[reason] = (summary.reasons[reason] ?? 0) + 1;
  return sum + (reward ?? 0);
}

/** Judges every completion of the files and prints the verdicts. Returns the exit code. */
export async function runScore(options: ScoreOptions, io: Io): Promise<number> {
  if (options.json && options.explain) {
    throw new RlsdError("ERR_RLSD_USAGE", "--json prints all that --explain does: leave one of them out.");
  }
  const fields = readFields(options.field ?? []);
  const verifier = createVerifier(readSpec(options.verifier));
  const controller = new AbortController();
  const summary: Summary = { rows: 0, completions: 0, judged: 0, undecided: 0, rewardMean: null, reasons: {} };
  const print = (text: string) => io.stdout.write(`${readable(text)}\n`);
  const printJson = (value: unknown) => io.stdout.write(`${jsonLine(value)}\n`);
  let quiet: (() => void) | undefined;
  try {
    const files = await findDataFiles(options.data);
    const total = await checkRows(files, fields, verifier);
    await startVerifier(verifier, controller.signal);
    quiet = meanwhile(() => `${summary.completions} of ${total} judged`, io.stderr);
    let sum = 0;
    let last = "";
    for await (const scored of judgeAll(files, fields, verifier, controller.signal)) {
      if (scored.where !== last) summary.rows++;
      last = scored.where;
      sum = count(summary, sum, scored.verdict);
      const { verdict, ...place } = scored;
      if (options.json) printJson({ ...place, ...verdict });
      else if (options.explain) print(explain(scored));
    }
    if (summary.judged > 0) summary.rewardMean = sum / summary.judged;
    if (options.json) printJson({ summary });
    else print(describe(summary));
    return EXIT.ok;
  } finally {
    quiet?.();
    controller.abort();
    await verifier.dispose?.();
  }
}

const help = () => `
Examples:
  rlsd score data.jsonl --verifier math
  rlsd score data.jsonl --verifier math --field answer=solution --explain
  rlsd score data.jsonl --verifier '{"type": "numeric", "relative": 0.01}' --json

Each row of the files (JSONL, JSON, CSV, TSV or Parquet; folders and patterns such as 'shards/*.jsonl' too) has "completion" or "completions" and the fields that the verifier reads.

Verifiers:
${listVerifiers()
  .map(({ type, summary }) => `  ${type.padEnd(11)} ${summary}`)
  .join("\n")}`;

/** `rlsd score`: what a verifier says about completions that exist already. */
export function registerScore(program: Command): void {
  program
    .command("score")
    .description("judge completions in files with a verifier")
    .argument("<data...>", "JSONL, JSON, CSV, TSV or Parquet files, folders or patterns")
    .requiredOption("--verifier <name|json|@file>", "which verifier")
    .option("--field <name=column>", "read a field from a column of another name (repeatable)", collect)
    .option("--explain", "print what was extracted, from where, and what it was compared with")
    .option("--json", "print one JSON object a line")
    .addHelpText("after", help)
    .action(async (data: string[], options: Omit<ScoreOptions, "data">) => {
      process.exitCode = await runScore({ data, ...options }, process);
    });
}
