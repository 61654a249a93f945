/** Answers of an environment that are waited for, and the conversations that may go on with theirs. */
export class Answers<T> {
  #waiting = 0;
  #ready: T[] = [];
  #failure: { readonly error: unknown } | undefined;
  #changed = () => {};

  /** `goesOn`: whether `one` has more to say; it may reject, which `next` does then. */
  wait(one: T, goesOn: Promise<boolean>): void {
    this.#waiting++;
    const over = () => {
      this.#waiting--;
      this.#changed();
    };
    goesOn.then(
      (more) => {
        if (more) this.#ready.push(one);
        over();
      },
      (error: unknown) => {
        this.#failure ??= { error };
        over();
      },
    );
  }

  /**
   * Those that may go on, one at least; none: all are over. Together they are drawn fast, so that the first of them waits for
   * those not answered yet: as long as drawing takes, which is what waiting may save.
   *
   * @param drawMs what the last turns took to be drawn
   */
  async next(drawMs: number): Promise<T[]> {
    const goesOn = () => this.#waiting > 0 && this.#failure === undefined;
    while (this.#ready.length === 0 && goesOn()) await this.#change();
    const end = performance.now() + drawMs;
    for (let left = drawMs; left > 0 && goesOn(); left = end - performance.now()) await this.#change(left);
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#ready.splice(0);
  }

  /** Resolves when an answer comes, or after so many milliseconds. */
  #change(milliseconds?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = milliseconds === undefined ? undefined : setTimeout(resolve, milliseconds);
      this.#changed = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
