/** A user's module, judged in killable workers: code that may hang, crash or leak belongs here. */
import { existsSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { RlsdError } from "../errors.js";
import { define } from "./definition.js";
import { withPlace } from "./error-place.js";
import { toVerdict, type VerifyFunction } from "./function.js";
import { anything, listOf, optional, rowError, text } from "./options.js";

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

/** Whether a path names a file; anything else is a package's name. */
export const isFilePath = (path: string): boolean =>
  path.startsWith(".") || isAbsolute(path) || /\.[cm]?[jt]s$/.test(path);

/** A file must exist; a package is resolved when it is imported. */
function specifier(path: string): string {
  if (!isFilePath(path)) return path;
  const file = resolve(path);
  if (!existsSync(file)) {
    const message = `Expected option "path" of the verifier "module" to be a file but there is none at ${file}.`;
    throw new RlsdError("ERR_RLSD_VERIFIER_MODULE", message);
  }
  return pathToFileURL(file).href;
}

async function importModule(from: string, path: string): Promise<Record<string, unknown>> {
  try {
    return await import(from);
  } catch (error) {
    throw new RlsdError("ERR_RLSD_VERIFIER_MODULE", `The module ${path} could not be loaded: ${withPlace(error)}`);
  }
}

export const moduleVerifier = define({
  type: "module",
  summary: "a function from a module of your own, in killable workers",
  where: "worker",
  drawnAlone: true,
  readers,
  create(options) {
    const from = specifier(options.path);
    let judge: VerifyFunction | undefined;
    const load = async (): Promise<VerifyFunction> => {
      const loaded = await importModule(from, options.path);
      const exported = loaded[options.export];
      if (typeof exported !== "function") {
        const names = Object.keys(loaded).join(", ") || "nothing";
        const message = `Expected ${options.path} to export the function "${options.export}" but it exports ${names}.`;
        throw new RlsdError("ERR_RLSD_VERIFIER_MODULE", message);
      }
      const made: unknown = options.options === undefined ? exported : await exported(options.options);
      if (typeof made === "function") return made as VerifyFunction;
      const message = `Expected "${options.export}" of ${options.path}, called with its options, to return a function.`;
      throw new RlsdError("ERR_RLSD_VERIFIER_MODULE", message);
    };
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
