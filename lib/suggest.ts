/** Levenshtein distance of two short names, one row of the table at a time. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** What a name is reduced to before it is compared, so that clip_low, clip-low and clipLow are one name. */
export const fold = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");

/**
 * The choice that a misspelt name most likely meant; undefined when none is near (more than a third of its letters wrong).
 * For the end of an error message: see `didYouMean`.
 */
export function closest(name: string, choices: Iterable<string>): string | undefined {
  const wanted = fold(name).slice(0, 64);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const choice of choices) {
    const d = distance(wanted, fold(choice));
    if (d < bestDistance) {
      best = choice;
      bestDistance = d;
    }
  }
  return best;
}

/** ` Did you mean "x"?` or, where no choice is near, the whole list: ` Expected one of a, b, c.` */
export function didYouMean(name: string, choices: Iterable<string>): string {
  const all = [...choices];
  const near = closest(name, all);
  return near === undefined ? ` Expected one of ${all.join(", ")}.` : ` Did you mean "${near}"?`;
}
