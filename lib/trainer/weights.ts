import { existsSync } from "node:fs";
import { join } from "node:path";
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS, asksTeacher } from "./algorithms.js";
import { type Checkpoint, INITIAL_FOLDER, savedTeacher, saveInitial } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { checkComparable } from "./distillation.js";
import { giveUpAll, releasing } from "./durable.js";
import { type RunFolder, readRunConfig } from "./run-folder.js";
import { baseFingerprint, loadBeside, loadStudent, policyLoader, requireBase } from "./student.js";
import { createTeacher, type LoadPolicy, TEACHER_FOLDER, type Teacher } from "./teacher.js";

/** Weights of a run: as they were given, or as the checkpoint has them. */
export interface Weights {
  readonly policy: Policy;
  readonly teacher: Teacher | undefined;
  readonly reference: Policy | undefined;
  /** Fingerprint of the weights under the adapters; undefined: there are none, or a hook knows where they lie. */
  readonly base: string | undefined;
}

const REFERENCE_FOLDER = "reference";

/**
 * Weights that a run keeps from its start on, beside the student's; it has none where its settings did not mean any then.
 * undefined: nothing was trained yet, so that they are the student's.
 */
async function loadKept(
  o: { readonly policy: Policy; readonly from: Checkpoint; readonly load: LoadPolicy },
  folder: string,
  means: string,
  part: "teacher" | "objective",
): Promise<Policy | undefined> {
  if (existsSync(folder)) return loadBeside(o.policy, folder, o.load);
  if (o.from.state.step === 0) return undefined;
  const { config } = await readRunConfig(join(o.from.path, "..", ".."));
  const was = `"algorithm" ${show(config.algorithm)}, "${part}" ${show(config[part])}`;
  throw new RlsdError(
    "ERR_RLSD_CONFIG",
    `${means}, but the run has kept no such weights in ${folder}: so far it had ${was}. Leave these as they were, or begin a new run with "model" at its checkpoint.`,
  );
}

const MEND = 'let "model" name the folder where they are now (--set model=...)';

const savedReference = (policy: Policy, from: Checkpoint, load: LoadPolicy): Promise<Policy | undefined> =>
  loadKept(
    { policy, from, load },
    join(from.path, "..", INITIAL_FOLDER, REFERENCE_FOLDER),
    '"objective.klCoef" above 0 means a KL reference',
    "objective",
  );

/**
 * The policy, the teacher if any step asks one, and the KL reference if there is a KL term. `hook`: how a folder becomes a
 * policy; what weights it has then is not told by the folder.
 */
export async function loadWeights(
  config: ResolvedConfig,
  from: Checkpoint | undefined,
  hook: LoadPolicy | undefined,
): Promise<Weights> {
  const load = policyLoader(config, hook);
  if (from !== undefined && hook === undefined) await requireBase(from, config.model, MEND);
  const policy = await loadStudent(config, from, load);
  let teacher: Teacher | undefined;
  return releasing(
    () => disposeWeights({ policy, teacher, reference: undefined }),
    async () => {
      const folderTells = policy.lora !== undefined && hook === undefined;
      const base = folderTells ? (from?.base ?? (await baseFingerprint(config.model))) : undefined;
      if (from !== undefined) await policy.loadOptimizer(from.model);
      if (asksTeacher(config)) {
        const { kind } = config.teacher;
        const folder = from && savedTeacher(kind, from);
        const means = `"teacher.kind" ${kind} means a teacher with weights of its own`;
        const restored =
          from === undefined || folder === undefined
            ? undefined
            : await loadKept({ policy, from, load }, folder, means, "teacher");
        teacher = await createTeacher(config.teacher, policy, load, restored);
        checkComparable(config, policy, teacher.policy);
      }
      if (!(ALGORITHMS[config.algorithm].objective(config).klCoef > 0))
        return { policy, teacher, reference: undefined, base };
      const kept = from && (await savedReference(policy, from, load));
      const reference = kept ?? (await policy.snapshot());
      return { policy, teacher, reference, base };
    },
  );
}

/** Saves what a run's checkpoints need not hold each time. */
export const saveConstants = (folder: RunFolder, { teacher, reference }: Weights): Promise<void> =>
  saveInitial(folder, {
    ...(teacher?.constant && { [TEACHER_FOLDER]: teacher.policy }),
    ...(reference && { [REFERENCE_FOLDER]: reference }),
  });

export async function disposeWeights({ policy, teacher, reference }: Omit<Weights, "base">): Promise<void> {
  await giveUpAll(
    () => teacher?.dispose(),
    () => reference?.dispose(),
    () => policy.dispose(),
  );
}
