import { RlsdError } from "../errors.js";
import { EXIT, Interrupted, printError } from "./command.js";

/** Stops what would lose its work with its output. */
let save: (() => void) | undefined;

/**
 * For errors of stdout. What has work to save stops as by Ctrl-C; anything else ends at once: a reader that went away
 * (`rlsd ... | head`) has read what it wanted, a full disk has not.
 */
export function onOutputLost(error: NodeJS.ErrnoException): void {
  if (save !== undefined) {
    save();
    return;
  }
  if (error.code === "EPIPE") process.exit(EXIT.ok);
  printError(new RlsdError("ERR_RLSD_WRITE", `cannot write the output: ${error.message}`), false);
  process.exit(EXIT.failed);
}

/**
 * Ctrl-C asks for a stop at the next safe point; a second one does not wait. `note` says so. What stops rejects with the
 * signal's reason, an Interrupted; an error that is none has another cause, also when it comes after Ctrl-C.
 *
 * @param saves it also stops so, and not at once, when its output can no longer be written
 */
export function onInterrupt(
  note: (text: string) => void,
  { saves = false } = {},
): { signal: AbortSignal; dispose: () => void } {
  const control = new AbortController();
  const handler = () => {
    if (control.signal.aborted) process.exit(130);
    note("stopping at the next safe point and saving; Ctrl-C again quits at once");
    control.abort(new Interrupted("interrupted"));
  };
  const lost = () => {
    if (control.signal.aborted) return;
    process.stderr.write("rlsd: the output can no longer be written: stopping at the next safe point and saving\n");
    control.abort(new Interrupted("interrupted"));
  };
  if (saves) save = lost;
  process.on("SIGINT", handler);
  process.on("SIGTERM", handler);
  const dispose = () => {
    process.off("SIGINT", handler);
    process.off("SIGTERM", handler);
    // What is left to say is lost as well, but no work.
    if (saves) save = () => {};
  };
  return { signal: control.signal, dispose };
}
