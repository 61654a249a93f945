/** A queue of work on one device. */
export interface Stream extends Disposable {
  /** "cuda:0", ... */
  readonly device: string;
  /** Resolves when everything queued so far is done. */
  synchronize(): Promise<void>;
  /** What is queued here from now on starts after what is queued on `other` so far. */
  waitFor(other: Stream): void;
}
