import { join } from "node:path";
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import type { ResolvedConfig } from "./config.js";

/** Whose word the credit listens to. Never the same object as the KL reference. */
export interface Teacher {
  readonly policy: Policy;
  /** After update `step` of the student. */
  afterUpdate(step: number): Promise<void>;
  /** Its weights never change and are its own: saved once, not with every checkpoint. */
  readonly constant: boolean;
  /** Writes what a checkpoint needs besides the student; nothing when it can be had otherwise. */
  save(directory: string): Promise<void>;
  dispose(): Promise<void>;
}

/** Makes a policy of a model's folder; who asked for it disposes of it. */
export type LoadPolicy = (directory: string) => Promise<Policy>;

/** Folder of the teacher's weights inside a checkpoint. */
export const TEACHER_FOLDER = "teacher";

const nothing = async (): Promise<void> => {};

/** Own weights that change: saved with every checkpoint. */
function moving(policy: Policy, afterUpdate: (step: number) => Promise<void>): Teacher {
  return {
    policy,
    afterUpdate,
    constant: false,
    save: (directory) => policy.save(join(directory, TEACHER_FOLDER), { dtype: "f32" }),
    dispose: () => policy.dispose(),
  };
}

/** Weights that never change and that a run need not save: they lie somewhere else. */
const given = (policy: Policy): Teacher => ({
  policy,
  afterUpdate: nothing,
  constant: false,
  save: nothing,
  dispose: () => policy.dispose(),
});

/** Whether such a teacher can be had of the policy. */
export function checkTeacher({ kind }: ResolvedConfig["teacher"], student: Policy): void {
  if (kind !== "base" || (student.lora !== undefined && student.base !== undefined)) return;
  const message =
    '"teacher.kind" is base, but the policy has no adapters that a base could be without: set "lora.rank".';
  throw new RlsdError("ERR_RLSD_CONFIG", message);
}

/**
 * The teacher of a run. `restored` is the teacher of the checkpoint that the run goes on from; without it the teacher
 * starts as the student is now.
 */
export async function createTeacher(
  settings: ResolvedConfig["teacher"],
  student: Policy,
  load: LoadPolicy,
  restored?: Policy,
): Promise<Teacher> {
  checkTeacher(settings, student);
  if (settings.kind === "shared") {
    return { policy: student, constant: false, afterUpdate: nothing, save: nothing, dispose: nothing };
  }
  if (settings.kind === "external") return given(await load(settings.model));
  if (settings.kind === "base") return given(await student.base!());
  const own = restored ?? (await student.snapshot());
  switch (settings.kind) {
    case "frozen":
      return { policy: own, constant: true, afterUpdate: nothing, save: nothing, dispose: () => own.dispose() };
    case "periodic":
      return moving(own, async (step) => {
        if (step % settings.every === 0) await own.copyFrom(student);
      });
    case "ema":
      return moving(own, () => own.copyFrom(student, settings.rate));
  }
}
