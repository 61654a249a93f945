import type { ChatMessage, Tool } from "../prompt/messages.js";

/** What an environment is told once the assistant has spoken. */
export interface Turn {
  /** Of the completion: the row's id, "#", and its number among the completions of the row. */
  readonly id: string;
  /** How many turns the assistant has had, this one included. */
  readonly turn: number;
  /** The conversation so far; this turn is its last message. */
  readonly messages: readonly ChatMessage[];
  /** What the assistant has just said, without special tokens. */
  readonly completion: string;
  /** The same with special tokens, in which some models write calls of tools, but for the one that ended it. */
  readonly raw: string;
  /** Every column of the data row that the conversation began with. */
  readonly row: Readonly<Record<string, unknown>>;
  /** What the last reply gave back to be kept; undefined at the first turn. */
  readonly state: unknown;
}

/** What an environment answers. */
export interface Reply {
  /** What the assistant reads next. A text is a message of the user; nothing, or an empty list: the conversation is over. */
  readonly messages?: string | readonly ChatMessage[] | null | undefined;
  /** Kept until the next turn: plain data. Default: what was kept before. */
  readonly state?: unknown;
  /** Added to what this conversation has earned so far, which begins at 0; the verifier `environment` gives the sum. Default 0. */
  readonly reward?: number | undefined;
  /** Logged with the sample; later replies win over earlier ones, name by name. */
  readonly detail?: Readonly<Record<string, unknown>> | undefined;
}

/** A reply, its messages alone, or null and undefined for the end of the conversation. */
export type Answer = Reply | string | readonly ChatMessage[] | null | undefined;

/** An environment in one function. */
export type EnvironmentFunction = (turn: Turn, signal: AbortSignal) => Answer | Promise<Answer>;

/** Why an environment could not answer: the conversation ends there, and nobody judges it. */
export interface EnvironmentFault {
  readonly reason: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** A checked reply. */
export interface CheckedReply {
  readonly messages: readonly ChatMessage[];
  readonly state: unknown;
  readonly reward: number;
  readonly detail: Readonly<Record<string, unknown>>;
  /** The turn with the calls that it was understood to make; absent: it made none. */
  readonly turn?: ChatMessage;
}

/** What the assistant talks to. `createEnvironment` makes one. */
export interface Environment {
  /** What every prompt offers the model to call; known once it has started. */
  readonly tools: readonly Tool[];
  /** Loads what answering needs; rejects where that cannot be had. Called once, before anything is asked. */
  start(signal?: AbortSignal): Promise<void>;
  /** Rejects with the signal's reason once that aborts, and for nothing else. */
  respond(turn: Turn, signal: AbortSignal): Promise<CheckedReply | { readonly fault: EnvironmentFault }>;
  dispose(): Promise<void>;
}
