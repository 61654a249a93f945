const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** "3.4 GiB". */
export function bytesText(bytes: number): string {
  const power = UNITS.findLastIndex((_, i) => bytes >= 1024 ** i || i === 0);
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}
