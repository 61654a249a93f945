import { join } from "node:path";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import { type Checkpoint, INITIAL_FOLDER, savedTeacher, saveInitial } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { giveUpAll, releasing } from "./durable.js";
import type { RunFolder } from "./run-folder.js";
import { loadBeside, loadStudent } from "./student.js";
import { createTeacher, type LoadPolicy, TEACHER_FOLDER, type Teacher } from "./teacher.js";

/** Weights of a run: as they were given, or as the checkpoint has them. */
export interface Weights {
  readonly policy: Policy;
  readonly teacher: Teacher | undefined;
  readonly reference: Policy | undefined;
}

const REFERENCE_FOLDER = "reference";

/** The policy, the teacher if any step asks one, and the KL reference if there is a KL term. */
export async function loadWeights(
  config: ResolvedConfig,
  from: Checkpoint | undefined,
  load: LoadPolicy,
): Promise<Weights> {
  const algorithm = ALGORITHMS[config.algorithm]!;
  const teaches = Array.from({ length: config.steps }, (_, i) => algorithm.teacherView(config, i + 1));
  const policy = await loadStudent(config, from, load);
  let teacher: Teacher | undefined;
  return releasing(
    () => disposeWeights({ policy, teacher, reference: undefined }),
    async () => {
      if (from !== undefined) await policy.loadOptimizer(from.model);
      if (teaches.some((view) => view !== "none")) {
        const saved = from && savedTeacher(config.teacher.kind, from);
        const restored = saved === undefined ? undefined : await loadBeside(policy, saved, load);
        teacher = await createTeacher(config.teacher, policy, load, restored);
      }
      if (!(algorithm.objective(config).klCoef > 0)) return { policy, teacher, reference: undefined };
      const kept = from && join(from.path, "..", INITIAL_FOLDER, REFERENCE_FOLDER);
      const reference = kept === undefined ? await policy.snapshot() : await loadBeside(policy, kept, load);
      return { policy, teacher, reference };
    },
  );
}

/** Saves what a run's checkpoints need not hold each time. */
export const saveConstants = (folder: RunFolder, { teacher, reference }: Weights): Promise<void> =>
  saveInitial(folder, {
    ...(teacher?.constant && { [TEACHER_FOLDER]: teacher.policy }),
    ...(reference && { [REFERENCE_FOLDER]: reference }),
  });

export async function disposeWeights({ policy, teacher, reference }: Weights): Promise<void> {
  await giveUpAll(
    () => teacher?.dispose(),
    () => reference?.dispose(),
    () => policy.dispose(),
  );
}
