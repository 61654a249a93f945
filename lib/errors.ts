/**
 * Every error that a user can cause. `code` is stable and meant for programs; `message` is one line for people:
 * what was expected, what came, and how to mend it.
 */
export class RlsdError extends Error {
  /** What went wrong, for programs; docs/api.md lists them. */
  readonly code: `ERR_RLSD_${string}`;
  /** The first token, id or element that is wrong, where one is: of ERR_RLSD_NON_FINITE always. */
  declare readonly index?: number;
  /** How many are; 0: nobody counted. */
  declare readonly count?: number;

  constructor(code: `ERR_RLSD_${string}`, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "RlsdError";
    this.code = code;
  }
}

/** What an error says; anything may be thrown. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
