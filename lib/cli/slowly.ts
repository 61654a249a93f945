/** Between two words of progress; nothing is said of what takes less. */
const PROGRESS_MS = 2000;

/** Says on stderr how far a count has come, every two seconds and not before. */
export function slowly(what: string, now = () => performance.now()): (count: number) => void {
  let toldAt = now();
  return (count) => {
    if (now() - toldAt < PROGRESS_MS) return;
    toldAt = now();
    process.stderr.write(`rlsd: ${count} ${what}\n`);
  };
}

/** Says every two seconds what is going on, until what is returned is called. */
export function meanwhile(say: () => string, stderr: NodeJS.WritableStream = process.stderr): () => void {
  const timer = setInterval(() => void stderr.write(`rlsd: ${say()}\n`), PROGRESS_MS);
  return () => clearInterval(timer);
}

/** Says once on a terminal what is going on, where that has not ended after two seconds: then what is returned is called. */
export function onceSlow(
  what: string,
  stderr: NodeJS.WritableStream & { readonly isTTY?: boolean } = process.stderr,
): () => void {
  if (stderr.isTTY !== true) return () => {};
  const timer = setTimeout(() => void stderr.write(`rlsd: ${what}\n`), PROGRESS_MS);
  return () => clearTimeout(timer);
}
