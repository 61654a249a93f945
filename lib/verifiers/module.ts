/** A user's module, judged in killable workers: code that may hang, crash or leak belongs here. */
import { define } from "./definition.js";
import { toVerdict, type VerifyFunction } from "./function.js";
import { anything, listOf, optional, rowError, text } from "./options.js";
import { userModule } from "./user-module.js";

const readers = {
  /** File to import, relative to the working directory, or the name of an installed package. */
  path: text(),
  /** Export that is called with (sample, signal) and returns a number, a boolean, null or a verdict. */
  export: text("verify"),
  /** When given, the export is called once with this value and returns the function to call. */
  options: optional(anything),
  /** Fields that every row must have. */
  fields: optional(listOf(text())),
};

const WHOSE = { what: 'verifier "module"', code: "ERR_RLSD_VERIFIER_MODULE" } as const;

export const moduleVerifier = define({
  type: "module",
  summary: "a function from a module of your own, in killable workers",
  where: "worker",
  drawnAlone: true,
  readers,
  create(options) {
    const from = userModule(options.path, WHOSE);
    let judge: VerifyFunction | undefined;
    const load = async () => (await from.loadFunction(options.export, options.options)) as VerifyFunction;
    return {
      check(row) {
        for (const field of options.fields ?? []) {
          if (row[field] === undefined || row[field] === null) throw rowError("module", field, "present", row[field]);
        }
      },
      async prepare() {
        judge = await load();
      },
      async judge(sample, signal) {
        judge ??= await load();
        return toVerdict(await judge(sample, signal));
      },
    };
  },
});
