/** A user's module, of a verifier or of an environment: how it is found, loaded and asked for a function. */
import { existsSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { RlsdError } from "../errors.js";
import { withPlace } from "./error-place.js";
import type { Whose } from "./options.js";

/** Whether a path names a file; anything else is a package's name. */
export const isFilePath = (path: string): boolean =>
  path.startsWith(".") || isAbsolute(path) || /\.[cm]?[jt]s$/.test(path);

export type Exports = Readonly<Record<string, unknown>>;

/** What a module exports, for messages. */
export const namesOf = (exported: Exports): string => Object.keys(exported).join(", ") || "nothing";

export interface UserModule {
  /** Of a file absolute: a worker may begin elsewhere. */
  readonly path: string;
  load(): Promise<Exports>;
  /** What a function that it exports makes of the options. */
  make(exported: Exports, name: string, options: unknown): Promise<unknown>;
  /** The export of that name; with options, what it returns when it is called with them. */
  loadFunction(name: string, options: unknown): Promise<(...given: never[]) => unknown>;
}

/**
 * The module at a path. A file must exist; a package is resolved when it is imported.
 *
 * @param whose what has the option "path", for messages, and the code of every error
 */
export function userModule(path: string, { what, code }: Whose): UserModule {
  const refuse = (message: string, cause?: unknown) => new RlsdError(code, message, { cause });
  const file = isFilePath(path) ? resolve(path) : undefined;
  if (file !== undefined && !existsSync(file)) {
    throw refuse(`Expected option "path" of the ${what} to be a file but there is none at ${file}.`);
  }
  const load = async (): Promise<Exports> => {
    try {
      return await import(file === undefined ? path : pathToFileURL(file).href);
    } catch (error) {
      // Where it is, Node tells nobody but a terminal; a missing export it names.
      const isHidden = error instanceof SyntaxError && !error.message.includes("export named");
      const where = isHidden ? ` (node --check ${path} shows where)` : "";
      throw refuse(`The module ${path} could not be loaded: ${withPlace(error)}${where}`, error);
    }
  };
  const make: UserModule["make"] = async (exported, name, options) => {
    try {
      return await (exported[name] as (options: unknown) => unknown)(options);
    } catch (error) {
      throw refuse(`"${name}" of ${path}, called with its options, threw ${withPlace(error)}.`, error);
    }
  };
  return {
    path: file ?? path,
    load,
    make,
    async loadFunction(name, options) {
      const exported = await load();
      const found = exported[name];
      if (typeof found !== "function") {
        throw refuse(`Expected ${path} to export the function "${name}" but it exports ${namesOf(exported)}.`);
      }
      const made = options === undefined ? found : await make(exported, name, options);
      if (typeof made === "function") return made as (...given: never[]) => unknown;
      throw refuse(`Expected "${name}" of ${path}, called with its options, to return a function.`);
    },
  };
}
