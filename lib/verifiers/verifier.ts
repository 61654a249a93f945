import type { ChatMessage } from "../prompt/messages.js";

/** One message of a chat. */
export type Message = ChatMessage;

/** What a verifier judges: one completion of one prompt, and every column of the data row it came from. */
export interface Sample {
  readonly id: string;
  /** As the model read it; of a conversation, all that it had read before its last turn. */
  readonly prompt: string;
  /** What was asked. */
  readonly messages?: readonly Message[] | undefined;
  /** What the model said; of a conversation, its last turn. */
  readonly completion: string;
  readonly finish: "stop" | "length";
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
  readonly reward: number | null;
  readonly detail?: Record<string, unknown> | undefined;
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
  verify(sample: Sample, signal: AbortSignal): Promise<Verdict>;
  dispose?(): Promise<void>;
}

/** A verifier that `createVerifier` made: a call need not have a signal. */
export interface MadeVerifier extends Verifier {
  verify(sample: Sample, signal?: AbortSignal): Promise<Verdict>;
}
