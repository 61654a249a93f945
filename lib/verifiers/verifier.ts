import type { ChatMessage } from "../prompt/messages.js";

/** One message of a chat. */
export type Message = ChatMessage;

/** What a verifier judges: one completion of one prompt, and every column of the data row it came from. */
export interface Sample {
  /** Of the row, and "#" with the number of the completion; unique among samples that are judged at once. */
  readonly id: string;
  /** As the model read it, with the template's special tokens as text; of a conversation, all that it had read before its last turn. */
  readonly prompt: string;
  /** What the prompt was made from. Absent: it was a text, as in a file for `rlsd score`. */
  readonly messages?: readonly Message[] | undefined;
  /** What was drawn, special tokens left out; of a conversation, the last turn. */
  readonly completion: string;
  /**
   * The same with special tokens, in which some models write calls of tools, but for the one that ended it. Absent: not known,
   * as in a file for `rlsd score`.
   */
  readonly raw?: string | undefined;
  /** "stop": it ended by itself. "length": it was cut off. */
  readonly finish: "stop" | "length";
  /** Every column of the data row; `answer` too where the answer came from another one. */
  readonly row: Readonly<Record<string, unknown>>;
  /** Of a conversation with an environment: all that followed the prompt, the model's turns and what it was answered. */
  readonly turns?: readonly Message[] | undefined;
  /** What the environment gave: the sum of its rewards, and the details of its replies. */
  readonly environment?: { readonly reward: number; readonly detail: Readonly<Record<string, unknown>> } | undefined;
}

/**
 * A verdict. `reward` null: the verifier could not judge, and the sample leaves the group's statistics,
 * the loss and its normaliser. `reason` says why; `detail` is logged with the sample.
 */
export interface Verdict {
  /** Finite; 1 is right where nothing else is said (`eval.successThreshold`). null: not judged. */
  readonly reward: number | null;
  /** Plain data, as JSON holds it. `feedback` in it may be shown to a teacher. */
  readonly detail?: Record<string, unknown> | undefined;
  /** One word: docs/verifiers.md lists those of the built-in verifiers. */
  readonly reason?: string | undefined;
}

/** The direction of every update comes from here, and from nowhere else. */
export interface Verifier {
  /** Throws when the row cannot be judged. Called for every row before training starts. */
  check?(row: Readonly<Record<string, unknown>>): void;
  /** The right answer as a completion states it, for a teacher; undefined: as the row says it. */
  answerOf?(row: Readonly<Record<string, unknown>>): string | undefined;
  /**
   * Loads what judging needs; rejects where that cannot be had, and with the signal's reason once it aborts. Called once before
   * training starts.
   */
  start?(signal?: AbortSignal): Promise<void>;
  /** Resolves with null as the reward where it cannot judge; rejects with the signal's reason once that aborts. */
  verify(sample: Sample, signal: AbortSignal): Promise<Verdict>;
  /** Gives back what it holds: processes, connections. Samples that wait then are not judged. */
  dispose?(): Promise<void>;
}

/** A verifier that `createVerifier` made: a call need not have a signal. */
export interface MadeVerifier extends Verifier {
  /** As of any verifier; without a signal nothing stops it. */
  verify(sample: Sample, signal?: AbortSignal): Promise<Verdict>;
}
