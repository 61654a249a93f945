import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, extname, isAbsolute, resolve } from "node:path";
import { isObject } from "../check.js";
import { RlsdError } from "../errors.js";
import { expandHome, isHomePath } from "../home-path.js";
import { located } from "../hub-cache.js";
import { readFault } from "../read-fault.js";
import { NOT_UTF8, utf8Text } from "../utf8.js";
import { isFilePath } from "../verifiers/user-module.js";
import { isFolder } from "./data/glob.js";
import { kindOf } from "./data/read-rows.js";
import { fieldAt, isText } from "./schema.js";

type Tree = Record<string, unknown>;

/** Objects that name what they are, such as a verifier that code made or one with its `type`, are taken whole. */
const isWhole = (value: Tree): boolean =>
  Object.hasOwn(value, "type") || ![Object.prototype, null].includes(Object.getPrototypeOf(value));

/** `over` wins; objects are merged, lists and what is whole are replaced. */
export function merge(base: Readonly<Tree>, over: Readonly<Tree>, replaced = isWhole): Tree {
  const merged = Object.entries(over).map(([name, value]) => {
    const before = Object.hasOwn(base, name) ? base[name] : undefined;
    const together = isObject(before) && isObject(value) && !replaced(value);
    return [name, together ? merge(before, value, replaced) : value] as const;
  });
  // Not by assignment: "__proto__" is a name as any other, and an error later.
  return Object.fromEntries([...Object.entries(base), ...merged]);
}

/** The file of a module; any other name is a package's. */
const modulePath = (path: string, at: (path: unknown) => unknown): unknown =>
  isFilePath(path) || isHomePath(path) ? at(path) : path;

/** Modules and programs that a reward names: alone, in what another one is made of, in a list. */
function anchorModules(reward: unknown, at: (path: unknown) => unknown): unknown {
  if (Array.isArray(reward)) return reward.map((part) => anchorModules(part, at));
  if (!isObject(reward)) return reward;
  if (reward.type === "module" && typeof reward.path === "string") {
    return { ...reward, path: modulePath(reward.path, at) };
  }
  // A program of a file is run where the file is.
  if (reward.type === "command") return { ...reward, cwd: at(reward.cwd ?? ".") };
  const inner = Object.entries(reward).map(([name, value]) => {
    if (name === "cases" && isObject(value)) {
      return [name, Object.fromEntries(Object.entries(value).map(([key, one]) => [key, anchorModules(one, at)]))];
    }
    return ["parts", "verifier", "gate", "otherwise"].includes(name) ? [name, anchorModules(value, at)] : [name, value];
  });
  return Object.fromEntries(inner);
}

/** Paths in a file are meant from where the file is; `~/` is the user's own folder, as in a shell. */
function anchor(tree: Tree, folder: string): Tree {
  const at = (path: unknown): unknown => {
    if (typeof path !== "string" || path === "" || isAbsolute(path)) return path;
    return resolve(folder, expandHome(path));
  };
  // A name that is no path from there may be one of a model in the cache.
  const model = (name: unknown): unknown => {
    const path = at(name);
    return path !== name && !existsSync(path as string) && located(name as string) !== name ? name : path;
  };
  const out: Tree = { ...tree };
  if ("model" in out) out.model = model(out.model);
  if ("output" in out) out.output = at(out.output);
  if (isObject(out.teacher) && "model" in out.teacher)
    out.teacher = { ...out.teacher, model: model(out.teacher.model) };
  if ("reward" in out) out.reward = anchorModules(out.reward, at);
  if (isObject(out.environment) && typeof out.environment.path === "string") {
    out.environment = { ...out.environment, path: modulePath(out.environment.path, at) };
  }
  if (isObject(out.data)) {
    const data: Tree = { ...out.data };
    for (const name of ["train", "eval"]) {
      if (typeof data[name] === "string") data[name] = [data[name]];
      if (Array.isArray(data[name])) data[name] = data[name].map(at);
    }
    out.data = data;
  }
  return out;
}

const isData = (file: string): RlsdError =>
  new RlsdError(
    "ERR_RLSD_CONFIG",
    `${file} is data, not settings (YAML or JSON): give it as --set data.train=${file}, with --set model=FOLDER, or name both in a file of settings.`,
  );

/** The settings of a YAML (.yaml, .yml) or JSON file. */
export async function readConfigFile(file: string): Promise<Tree> {
  if (await isFolder(file)) {
    const message = `${file} is a folder, not settings (YAML or JSON). Data in it are given as --set data.train=${file}.`;
    throw new RlsdError("ERR_RLSD_CONFIG", message);
  }
  const kind = kindOf(file);
  if (kind !== undefined && kind !== ".json") throw isData(file);
  let content: string | undefined;
  try {
    content = utf8Text(await readFile(file));
  } catch (error) {
    throw new RlsdError("ERR_RLSD_CONFIG", `cannot read ${file}: ${readFault(file, error)}.`);
  }
  if (content === undefined) throw new RlsdError("ERR_RLSD_CONFIG", `${file}: ${NOT_UTF8}.`);
  let value: unknown;
  try {
    const yaml = extname(file) === ".json" ? undefined : await import("yaml");
    value = yaml === undefined ? JSON.parse(content) : yaml.parse(content);
  } catch (error) {
    const why = error instanceof Error ? error.message.split("\n")[0]!.replace(/:$/, "") : String(error);
    // A pattern of files, most likely: YAML has its own meaning for a star that begins a text.
    const mend = why.startsWith("Unresolved alias") ? " A text that begins with * stands in quotes." : "";
    throw new RlsdError("ERR_RLSD_CONFIG", `${file}: ${why}${mend}`);
  }
  if (value === null || value === undefined) return {};
  if (kind !== undefined && Array.isArray(value)) throw isData(file);
  if (!isObject(value)) throw new RlsdError("ERR_RLSD_CONFIG", `${file}: expected settings (an object at the top).`);
  return anchor(value, dirname(resolve(file)));
}

/** Settings are three deep, and options of a verifier's parts in them a few more. */
const MOST_NAMES = 32;

/** A text that YAML is to read: in quotes, or over several lines. */
const IN_YAML = /^\s*["'|>]/;

/**
 * A value of `--set` as YAML. Where the setting is a text it is taken as it stands, {{ content }}, 12 and "a: b" alike, but for
 * one in quotes, and null where that is allowed.
 */
async function setValue(assignment: string, names: readonly string[], text: string): Promise<unknown> {
  const { parse } = await import("yaml");
  const { trainSchema } = await import("./settings.js");
  const setting = fieldAt(trainSchema, names);
  const plain = isText(setting);
  let value: unknown;
  try {
    // A star that begins a text is an alias in YAML, of which there can be none here.
    value = text.startsWith("*") ? text : parse(text, { logLevel: "error" });
  } catch (error) {
    if (plain) return text;
    const why = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new RlsdError(
      "ERR_RLSD_CONFIG",
      `--set ${assignment}: ${why} The value is read as YAML: a text with { } [ ] or : in it, or a * before it, stands in quotes, inside those of the shell.`,
    );
  }
  const meant = IN_YAML.test(text) ? typeof value === "string" : value === null && setting?.accepts(null);
  return plain && !meant ? text : value;
}

/** `optimizer.learningRate=2e-4` into { optimizer: { learningRate: 0.0002 } }; the value is read as YAML. */
export async function parseSet(assignments: readonly string[] = []): Promise<Tree> {
  let out: Tree = {};
  for (const assignment of assignments) {
    const cut = assignment.indexOf("=");
    if (cut <= 0) {
      throw new RlsdError("ERR_RLSD_CONFIG", `--set: expected key=value but received "${assignment}".`);
    }
    const names = assignment.slice(0, cut).split(".");
    if (names.length > MOST_NAMES) {
      const message = `--set: expected at most ${MOST_NAMES} names before = but received ${names.length}.`;
      throw new RlsdError("ERR_RLSD_CONFIG", message);
    }
    const value = await setValue(assignment, names, assignment.slice(cut + 1));
    const tree = names.reduceRight<unknown>((inner, name) => ({ [name]: inner }), value);
    // One after the other they say one thing: `reward.type=math` may come after `reward.decimals=3`.
    out = merge(out, tree as Tree, () => false);
  }
  return anchor(out, process.cwd());
}
