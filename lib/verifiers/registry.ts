/** Verifiers by name. */
import { isObject, show } from "../check.js";
import { RlsdError } from "../errors.js";
import { didYouMean } from "../suggest.js";
import { boolean } from "./boolean.js";
import { calls } from "./calls.js";
import { choice } from "./choice.js";
import { gated, switched, weightedSum } from "./combine.js";
import { command } from "./command.js";
import { type Definition, inline, type Judge } from "./definition.js";
import { environment } from "./environment.js";
import { fromFunction, type VerifyFunction } from "./function.js";
import { Harness } from "./harness.js";
import { type HarnessStats, harnessReaders } from "./harness-options.js";
import { http } from "./http.js";
import { box, span } from "./iou.js";
import { tags, xml } from "./markup.js";
import { math } from "./math.js";
import { moduleVerifier } from "./module.js";
import { numeric } from "./numeric.js";
import { anything, listOf, number, optional, type Reader, readOptions, text as textOption } from "./options.js";
import { regex } from "./regex.js";
import { schema } from "./schema.js";
import { length, repetition } from "./shape.js";
import { withSignal } from "./signal.js";
import { text } from "./text.js";
import type { MadeVerifier, Verifier } from "./verifier.js";

const definitions = {
  math,
  choice,
  boolean,
  numeric,
  text,
  schema,
  calls,
  regex,
  tags,
  xml,
  "box-iou": box,
  "span-iou": span,
  length,
  repetition,
  module: moduleVerifier,
  command,
  http,
  environment,
};

const COMBINATORS = {
  sum: "weighted sum of other verifiers",
  gate: "one verifier only where another is satisfied",
  switch: "each row by the verifier that a column of it names",
};

/** What `createVerifier` knows, for an editor to offer; any other text may come from data, and is refused when it is read. */
type VerifierName = keyof typeof definitions | keyof typeof COMBINATORS | (string & Record<never, never>);

/** Those that run in workers. */
type WorkerName = {
  [K in keyof typeof definitions]: (typeof definitions)[K]["where"] extends "worker" ? K : never;
}[keyof typeof definitions];

/** A verifier as data: its name, or `{ type, ...options }`. */
export type VerifierSpec = VerifierName | { readonly type: VerifierName; readonly [option: string]: unknown };

/** A verifier that runs in workers says how that went. */
export interface WorkerVerifier extends MadeVerifier {
  /** As of now. */
  readonly stats: HarnessStats;
}

/** Every name that `createVerifier` knows, with one line about each. */
export function listVerifiers(): readonly { readonly type: string; readonly summary: string }[] {
  const named = Object.values(definitions).map(({ type, summary }) => ({ type, summary }));
  return [...named, ...Object.entries(COMBINATORS).map(([type, summary]) => ({ type, summary }))];
}

function normalize(spec: unknown): { readonly type: string; readonly [option: string]: unknown } {
  if (typeof spec === "string") return { type: spec };
  if (typeof spec === "object" && spec !== null && "type" in spec && typeof spec.type === "string") {
    return spec as { type: string };
  }
  const message = `Expected a verifier's name or an object with a "type" but received ${show(spec)}.`;
  throw new RlsdError("ERR_RLSD_VERIFIER", message);
}

function definitionOf(type: string): Definition {
  if (Object.hasOwn(definitions, type)) return definitions[type as keyof typeof definitions];
  const names = listVerifiers().map((known) => known.type);
  throw new RlsdError("ERR_RLSD_VERIFIER", `There is no verifier "${type}".${didYouMean(type, names)}`);
}

const isHarnessOption = (name: string) => Object.hasOwn(harnessReaders, name);

/** Options of the verifier itself and, for one that runs in workers, of its harness. */
function split(definition: Definition, spec: Readonly<Record<string, unknown>>) {
  const both = definition.where === "worker" ? { ...definition.readers, ...harnessReaders } : definition.readers;
  const all = readOptions(definition.type, spec, both);
  const own = Object.fromEntries(
    Object.entries(all).filter(([name]) => !isHarnessOption(name) || name in definition.readers),
  );
  return { all, own };
}

/** The judge that a spec names, to run where this is called. For workers. */
export function createJudge(spec: VerifierSpec | Readonly<Record<string, unknown>>): Judge {
  const plain = normalize(spec);
  const definition = definitionOf(plain.type);
  return definition.create(split(definition, plain).own);
}

function inWorkers(definition: Definition, spec: Readonly<Record<string, unknown>>): Verifier {
  const { own } = split(definition, spec);
  try {
    structuredClone(spec);
  } catch (error) {
    const message = `Expected plain data as options of the verifier "${definition.type}", which go to another process: ${String(error)}.`;
    throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message, { cause: error });
  }
  // Made here too: the options are checked now, and rows can be without a worker.
  const judge = definition.create(own);
  const given = Object.fromEntries(Object.entries(spec).filter(([name]) => isHarnessOption(name)));
  const harness = new Harness({ spec }, readOptions(definition.type, given, harnessReaders));
  return {
    ...(judge.check && { check: judge.check.bind(judge) }),
    start: (signal) => harness.start(signal),
    verify: (sample, signal) => harness.verify(sample, signal),
    dispose: () => harness.dispose(),
    get stats() {
      return harness.stats;
    },
  } satisfies Verifier & Pick<WorkerVerifier, "stats">;
}

const partSpec: Reader<{ verifier: unknown; weight?: number; name?: string }> = (value) => {
  if (typeof value !== "object" || value === null || !("verifier" in value)) {
    return { expected: "{ verifier, weight?, name? }" };
  }
  const { verifier, weight, name, ...rest } = value as Record<string, unknown>;
  if (Object.keys(rest).length > 0) return { expected: "only verifier, weight and name" };
  if (weight !== undefined && !Number.isFinite(weight)) return { expected: "a finite weight" };
  if (name !== undefined && typeof name !== "string") return { expected: "a text as name" };
  return { ok: { verifier, ...(typeof weight === "number" && { weight }), ...(typeof name === "string" && { name }) } };
};

function createSum(spec: Readonly<Record<string, unknown>>): Verifier {
  const { parts } = readOptions("sum", spec, { parts: listOf(partSpec) });
  return weightedSum(
    parts.map(({ verifier, weight, name }) => ({
      name: partName({ name, verifier }),
      verifier: createVerifier(verifier as VerifierSpec),
      ...(weight !== undefined && { weight }),
    })),
  );
}

const nameOf = (spec: unknown): string =>
  typeof spec === "string"
    ? spec
    : typeof spec === "object" && spec !== null && "type" in spec
      ? String(spec.type)
      : "verifier";

/** Key of a sum's part in a verdict's detail: its own name, or its verifier's type. */
export const partName = ({
  name,
  verifier,
}: {
  readonly name?: string | undefined;
  readonly verifier: unknown;
}): string => name ?? (typeof verifier === "object" || typeof verifier === "string" ? nameOf(verifier) : "function");

function createGate(spec: Readonly<Record<string, unknown>>): Verifier {
  const readers = {
    gate: anything,
    verifier: anything,
    threshold: optional(number(undefined)),
    otherwise: optional(number(undefined)),
  };
  const { gate, verifier, threshold, otherwise } = readOptions("gate", spec, readers);
  return gated(createVerifier(gate as VerifierSpec), createVerifier(verifier as VerifierSpec), threshold, otherwise);
}

const verifiersByName: Reader<Readonly<Record<string, unknown>>> = (value) =>
  isObject(value) && Object.keys(value).length > 0
    ? { ok: value }
    : { expected: "{ value: verifier } with at least one" };

function createSwitch(spec: Readonly<Record<string, unknown>>): Verifier {
  const readers = { field: textOption(), cases: verifiersByName, otherwise: optional(anything) };
  const { field, cases, otherwise } = readOptions("switch", spec, readers);
  const made = Object.entries(cases).map(([value, one]) => [value, createVerifier(one as VerifierSpec)]);
  const last = otherwise === undefined ? undefined : createVerifier(otherwise as VerifierSpec);
  return switched(field, Object.fromEntries(made), last);
}

function make(spec: VerifierSpec | VerifyFunction): Verifier {
  if (typeof spec === "function") return fromFunction(spec);
  const plain = normalize(spec);
  if (plain.type === "sum") return createSum(plain);
  if (plain.type === "gate") return createGate(plain);
  if (plain.type === "switch") return createSwitch(plain);
  const definition = definitionOf(plain.type);
  if (definition.where === "worker") return inWorkers(definition, plain);
  return inline(definition.create(split(definition, plain).own));
}

/**
 * Makes a verifier: from its name ("math"), from plain data ({ type: "math", answer: "solution" }), from a function, or from
 * a verifier, which is returned as it is. Options are checked now; ERR_RLSD_VERIFIER and ERR_RLSD_VERIFIER_OPTION say what is
 * wrong and what was probably meant.
 */
export function createVerifier(
  spec: WorkerName | { readonly type: WorkerName; readonly [option: string]: unknown },
): WorkerVerifier;
export function createVerifier(spec: VerifierSpec | VerifyFunction): MadeVerifier;
export function createVerifier(spec: VerifierSpec | VerifyFunction | Verifier): Verifier;
export function createVerifier(spec: VerifierSpec | VerifyFunction | Verifier): Verifier {
  if (typeof spec === "object" && spec !== null && "verify" in spec && typeof spec.verify === "function") {
    return spec as Verifier;
  }
  return withSignal(make(spec as VerifierSpec | VerifyFunction));
}
