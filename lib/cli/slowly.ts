/** Says on stderr how far a count has come, every two seconds and not before. */
export function slowly(what: string, now: () => number = Date.now): (count: number) => void {
  let toldAt = now();
  return (count) => {
    if (now() - toldAt < 2000) return;
    toldAt = now();
    process.stderr.write(`rlsd: ${count} ${what}\n`);
  };
}
