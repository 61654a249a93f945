import { textOf } from "../check.js";
import { onAbort } from "../on-abort.js";
import { deadline } from "./deadline.js";

/** What a user's code came to, or why it came to nothing. */
export type Outcome<T> =
  | { readonly ok: T }
  | { readonly fault: { readonly reason: string; readonly detail: Readonly<Record<string, unknown>> } };

/**
 * What `call` comes to, or why it came to nothing: it threw, or its promise did not settle within `ms`, whereupon the signal that
 * it was given is aborted. A function that never returns cannot be stopped in its own process: put such code into a module.
 */
export async function answered<T>(
  call: (signal: AbortSignal) => T | Promise<T>,
  signal: AbortSignal,
  ms = 30_000,
): Promise<Outcome<T>> {
  signal.throwIfAborted();
  using limit = deadline(signal, ms);
  let forget = () => {};
  const ended = new Promise<Outcome<T>>((resolve, reject) => {
    forget = onAbort(limit.signal, () =>
      limit.late() ? resolve({ fault: { reason: "timeout", detail: { deadlineMs: ms } } }) : reject(signal.reason),
    );
  });
  const said = (async (): Promise<Outcome<T>> => {
    try {
      return { ok: await call(limit.signal) };
    } catch (error) {
      signal.throwIfAborted();
      return { fault: { reason: "error", detail: { message: textOf(error) } } };
    }
  })();
  try {
    return await Promise.race([said, ended]);
  } finally {
    forget();
  }
}
