import { messageOf, RlsdError } from "./errors.js";

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "there is no space left on the device; free some",
  EDQUOT: "your disk quota is used up; free some",
  EFBIG: "the file grew beyond what is allowed here",
  EROFS: "the file system is read-only; choose another folder",
  EACCES: "permission denied; choose another folder",
  EPERM: "permission denied; choose another folder",
  EEXIST: "a file is in its place; choose another folder",
  EISDIR: "a folder is in its place; choose another one",
  ENOTDIR: "a part of the path is a file; choose another folder",
  EIO: "the device failed",
  ELOOP: "a link on the path leads to itself; choose another folder",
  ENAMETOOLONG: "a name on the path is too long; choose another one",
  ENOENT: "no folder can be made there; choose another one",
};

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException)?.code ?? "";

/** Whether it is the disk that refused. */
export const isRefusedWrite = (error: unknown): boolean => Object.hasOwn(REASONS, codeOf(error));

/** A failed write as an error that says what to do. `what` was being written. */
export function writeError(what: string, error: unknown): RlsdError {
  if (error instanceof RlsdError) return error;
  const why = REASONS[codeOf(error)] ?? messageOf(error);
  return new RlsdError("ERR_RLSD_WRITE", `cannot write ${what}: ${why}. Nothing saved before is lost.`, {
    cause: error,
  });
}
