import { Interrupted } from "./command.js";

/**
 * Ctrl-C asks for a stop at the next safe point; a second one does not wait. `note` says so. What stops rejects with the
 * signal's reason, an Interrupted; an error that is none has another cause, also when it comes after Ctrl-C.
 */
export function onInterrupt(note: (text: string) => void): { signal: AbortSignal; dispose: () => void } {
  const control = new AbortController();
  const handler = () => {
    if (control.signal.aborted) process.exit(130);
    note("stopping at the next safe point and saving; Ctrl-C again quits at once");
    control.abort(new Interrupted("interrupted"));
  };
  process.on("SIGINT", handler);
  process.on("SIGTERM", handler);
  const dispose = () => {
    process.off("SIGINT", handler);
    process.off("SIGTERM", handler);
  };
  return { signal: control.signal, dispose };
}
