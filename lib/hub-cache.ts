import { existsSync, readFileSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { RlsdError } from "./errors.js";
import { expandHome } from "./home-path.js";

/** Hugging Face's rule: at most one slash; a name begins with no dot or dash. */
const NAME = /^\w[\w.-]{0,95}(\/\w[\w.-]{0,95})?$/;

/** Where the Hugging Face libraries keep what they fetched, by the variables that they obey. */
export function hubCache(env: NodeJS.ProcessEnv = process.env): string {
  const own = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  if (own) return expandHome(own);
  return join(expandHome(env.HF_HOME || join(env.XDG_CACHE_HOME || "~/.cache", "huggingface")), "hub");
}

/** What lies there; undefined: nothing, or what cannot be reached (a link that leads to itself, a name that is too long). */
function found(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** The snapshot of a model that `hf download NAME` or a library has fetched; undefined: it is not there. Nothing is downloaded. */
function cachedModel(name: string): string | undefined {
  if (!NAME.test(name)) return undefined;
  const folder = join(hubCache(), `models--${name.replace("/", "--")}`);
  const ref = join(folder, "refs", "main");
  if (found(ref)?.isFile() !== true) return undefined;
  const snapshot = join(folder, "snapshots", readFileSync(ref, "utf8").trim());
  return existsSync(snapshot) ? snapshot : undefined;
}

/** The folder that is meant: the one of that path, else the one that the cache has under that name, else the path. */
export const located = (model: string): string => (existsSync(model) ? model : (cachedModel(model) ?? model));

/** What a model may be, for an error that says that one is missing. */
export const modelExpected = (): string =>
  `expected a Hugging Face model folder, a .gguf file, or the name of a model in ${hubCache()}. ` +
  "Nothing is downloaded; `hf download NAME` fetches one there, with --local-dir FOLDER into a folder";

/** Whether a model is meant to be one GGUF file, by its name. */
export const isGgufPath = (path: string): boolean => /\.gguf$/i.test(path);

/** As located; throws ERR_RLSD_MODEL_FILE where that is neither a folder nor a GGUF file. */
export function locatedModel(model: string): string {
  const path = located(model);
  const there = found(path);
  if (there?.isDirectory() || (there?.isFile() && isGgufPath(path))) return path;
  const what = there === undefined ? "does not exist" : "is a file";
  throw new RlsdError("ERR_RLSD_MODEL_FILE", `${path}: ${what}: ${modelExpected()}`);
}
