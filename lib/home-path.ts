import { homedir } from "node:os";
import { join, sep } from "node:path";

/** Whether a path begins in the user's own folder, as a shell writes it: `~/`, on Windows `~\` too. */
export const isHomePath = (path: string): boolean => path.startsWith("~/") || path.startsWith(`~${sep}`);

/** The path itself where it does not begin with `~/`. */
export const expandHome = (path: string): string => (isHomePath(path) ? join(homedir(), path.slice(2)) : path);
