/** Why verifiers said what they said, counted: what a mean reward does not tell. */
import { type Judged, partsOf } from "./judge.js";

/** A verifier of one's own may write sentences: the log is to have columns. */
const MOST_REASONS = 8;
const MOST_CHARACTERS = 40;

const nameOf = (reason: string): string => reason.replaceAll(/\s+/g, " ").trim().slice(0, MOST_CHARACTERS);

/** The reasons of a verdict's parts, or, where they have none, its own. */
function reasonsOf(verdict: Partial<Judged>): string[] {
  const inner = partsOf(verdict).flatMap(([, part]) => reasonsOf(part));
  if (inner.length > 0) return [...new Set(inner)];
  return typeof verdict.reason === "string" ? [nameOf(verdict.reason)] : [];
}

/** How often each came, the most frequent first. */
function counted(reasons: readonly string[]): [reason: string, count: number][] {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const ordered = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
  return ordered.slice(0, MOST_REASONS);
}

/** `reason/<reason>`: share of the completions that were judged; `unjudged/<reason>`: how many of the others. */
export function reasonMetrics(verdicts: readonly Judged[]): Record<string, number> {
  const judged = verdicts.filter(({ reward }) => reward !== null);
  const given = counted(judged.flatMap(reasonsOf)).map(([reason, n]) => [`reason/${reason}`, n / judged.length]);
  const others = verdicts.filter(({ reward }) => reward === null).map(({ reason = "none" }) => nameOf(reason));
  return Object.fromEntries([...given, ...counted(others).map(([reason, n]) => [`unjudged/${reason}`, n])]);
}
