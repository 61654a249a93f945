import type { Tokenizer } from "./tokenizer.js";

/** What a policy keeps of the folder it came from, to write it again. */
export interface PolicyOrigin {
  readonly json: Readonly<Record<string, unknown>>;
  readonly companions: ReadonlyMap<string, Uint8Array>;
  readonly tokenizer?: Tokenizer | undefined;
  /** Sequences sampled at once, at most. */
  readonly maxSequences?: number | undefined;
  /** Of the model under adapters that a folder gave: they may have text files of their own. Absent: they have the model's. */
  readonly model?: PolicyOrigin | undefined;
}
