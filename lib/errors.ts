/**
 * Every error that a user can cause. `code` is stable and meant for programs; `message` is one line for people:
 * what was expected, what came, and how to mend it.
 */
export class RlsdError extends Error {
  readonly code: `ERR_RLSD_${string}`;

  constructor(code: `ERR_RLSD_${string}`, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "RlsdError";
    this.code = code;
  }
}
