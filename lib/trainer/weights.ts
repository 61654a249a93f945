import { join } from "node:path";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import { type Checkpoint, INITIAL_FOLDER, saveInitial } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { giveUpAll } from "./durable.js";
import { CHECKPOINTS, type RunFolder } from "./run-folder.js";
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
  run: string | undefined,
  from: Checkpoint | undefined,
  load: LoadPolicy,
): Promise<Weights> {
  const policy = await load(from?.model ?? config.model);
  if (from !== undefined) await policy.loadOptimizer(from.model);
  const initial = join(run ?? "", CHECKPOINTS, INITIAL_FOLDER);
  const algorithm = ALGORITHMS[config.algorithm]!;
  const teaches = Array.from({ length: config.steps }, (_, i) => algorithm.teacherView(config, i + 1));
  let teacher: Teacher | undefined;
  if (teaches.some((view) => view !== "none")) {
    const { kind } = config.teacher;
    const own = kind === "frozen" || kind === "periodic" || kind === "ema";
    const restored =
      from !== undefined && own
        ? await load(kind === "frozen" ? join(initial, TEACHER_FOLDER) : from.teacher)
        : undefined;
    teacher = await createTeacher(config.teacher, policy, load, restored);
  }
  const withKl = algorithm.objective(config).klCoef > 0;
  const reference = !withKl
    ? undefined
    : from === undefined
      ? await policy.snapshot()
      : await load(join(initial, REFERENCE_FOLDER));
  return { policy, teacher, reference };
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
