import { checkSignal } from "../check.js";
import type { MadeVerifier, Verifier } from "./verifier.js";

const NEVER = new AbortController().signal;

/** A call without a signal is one that nobody stops; anything else in its place is an error. */
export function withSignal(verifier: Verifier): MadeVerifier {
  const verify = verifier.verify;
  verifier.verify = async (sample, signal = NEVER) => {
    checkSignal(signal);
    return verify(sample, signal);
  };
  return verifier;
}
