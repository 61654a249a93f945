import { spoken } from "./extract.js";
import type { Read, Readers } from "./options.js";
import type { Sample, Verdict, Verifier } from "./verifier.js";

export type Row = Readonly<Record<string, unknown>>;

/** What a built-in verifier does, without where it runs. `judge` may throw: that is null, reason "error". */
export interface Judge {
  check?(row: Row): void;
  answerOf?(row: Row): string | undefined;
  /** Loads what is heavy, in the worker and before any deadline runs. */
  prepare?(): Promise<void>;
  judge(sample: Sample, signal: AbortSignal): Verdict | Promise<Verdict>;
  dispose?(): Promise<void>;
}

/** A verifier by name. */
export interface Definition {
  readonly type: string;
  /** One line for lists and `--help`. */
  readonly summary: string;
  /**
   * "worker": judged in killable processes, because an answer or a pattern can make it slow. "inline": linear in the
   * completion, judged where it is called.
   */
  readonly where: "inline" | "worker";
  /** Judges what the model drew and no more; without it, a thought that the prompt opened belongs to the completion. */
  readonly drawnAlone?: boolean;
  readonly readers: Readers;
  create(options: Readonly<Record<string, unknown>>): Judge;
}

/** A sample whose texts begin with the thought that its prompt opens. */
function withThought(sample: Sample): Sample {
  const { raw } = sample;
  const rest = raw === undefined ? {} : { raw: spoken({ ...sample, completion: raw }) };
  return { ...sample, completion: spoken(sample), ...rest };
}

export function define<const R extends Readers, const W extends Definition["where"]>(definition: {
  readonly type: string;
  readonly summary: string;
  readonly where: W;
  readonly drawnAlone?: boolean;
  readonly readers: R;
  create(options: Read<R>): Judge;
}): Definition & { readonly where: W } {
  return {
    ...definition,
    create(options) {
      const made = definition.create(options as Read<R>);
      if (definition.drawnAlone) return made;
      return { ...made, judge: (sample, signal) => made.judge(withThought(sample), signal) };
    },
  };
}

/** A judge as a verifier of this process. An exception is the verifier's fault, hence null, unless the call was aborted. */
export function inline(judge: Judge): Verifier {
  const verify: Verifier["verify"] = async (sample, signal) => {
    signal.throwIfAborted();
    try {
      return await judge.judge(sample, signal);
    } catch (error) {
      signal.throwIfAborted();
      return { reward: null, reason: "error", detail: { message: String(error) } };
    }
  };
  return {
    verify,
    ...(judge.check && { check: judge.check.bind(judge) }),
    ...(judge.answerOf && { answerOf: judge.answerOf.bind(judge) }),
    ...(judge.dispose && { dispose: judge.dispose.bind(judge) }),
  };
}

/** No answer was stated: the completion's own fault. */
export function noAnswer(expected: unknown): Verdict {
  return { reward: 0, reason: "no-answer", detail: { extracted: null, expected } };
}
