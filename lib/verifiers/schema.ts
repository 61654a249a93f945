/** JSON by JSON Schema: drafts 2020-12, 2019-09 and 07. */
import { createRequire } from "node:module";
import type * as Draft07 from "ajv";
import type { ValidateFunction } from "ajv";
import type * as Draft2019 from "ajv/dist/2019.js";
import type * as Draft2020 from "ajv/dist/2020.js";
import { isObject, show } from "../check.js";
import { define, noAnswer, type Row } from "./definition.js";
import { extractJson } from "./json-extract.js";
import { anything, idleOption, number, oneOf, optional, rowError, text } from "./options.js";
import { linearRegExp } from "./regex.js";

const readers = {
  /** The schema for every row. Without it the row holds one. */
  schema: optional(anything),
  /** Field with the row's schema, an object or its JSON text, where no `schema` is given; default: "schema". */
  field: optional(text()),
  /** Which draft; auto: by `$schema`, 2020-12 without it. */
  draft: oneOf(["auto", "2020-12", "2019-09", "draft-07"], "auto"),
  /** Accept only JSON inside this tag; default: the whole answer, a fenced block, or the last object or array in the prose. */
  tag: optional(text()),
  /** Reward of JSON that does not satisfy the schema. */
  parsed: number(0),
};

type Draft = "2020-12" | "2019-09" | "draft-07";
type Validator = InstanceType<typeof Draft2020.Ajv2020>;

const load = createRequire(import.meta.url);
const engines = new Map<Draft, Validator>();

function construct(draft: Draft): Validator {
  const options = { strict: false, code: { regExp: linearRegExp } } as const;
  if (draft === "2020-12") {
    const { Ajv2020 } = load("ajv/dist/2020.js") as typeof Draft2020;
    return new Ajv2020(options);
  }
  if (draft === "2019-09") {
    const { Ajv2019 } = load("ajv/dist/2019.js") as typeof Draft2019;
    return new Ajv2019(options);
  }
  const { Ajv } = load("ajv") as typeof Draft07;
  return new Ajv(options);
}

/** Loaded at the first schema of its draft. Patterns run on a linear-time engine; no reference is ever fetched. */
function engine(draft: Draft): Validator {
  const known = engines.get(draft);
  if (known !== undefined) return known;
  const made = construct(draft);
  const addFormats = (load("ajv-formats") as { default: (to: Validator) => void }).default;
  addFormats(made);
  engines.set(draft, made);
  return made;
}

function draftOf(schema: object): Draft {
  const named = "$schema" in schema ? String(schema.$schema) : "";
  if (named.includes("draft-07")) return "draft-07";
  return named.includes("2019-09") ? "2019-09" : "2020-12";
}

function compile(source: unknown, draft: Draft | "auto"): ValidateFunction {
  const value: unknown = typeof source === "string" ? JSON.parse(source) : source;
  if (typeof value !== "boolean" && !isObject(value)) {
    throw new Error("a schema is an object, true or false");
  }
  const ajv = engine(draft !== "auto" ? draft : typeof value === "object" ? draftOf(value) : "2020-12");
  const validate = ajv.compile(value);
  // A schema's own $id may come again with another row: nothing is kept under its name.
  ajv.removeSchema(value);
  return validate;
}

const ofArguments = new WeakMap<object, ValidateFunction>();

/** What a validator said first. */
function whyNot(validate: ValidateFunction, name: string): string {
  const error = validate.errors?.[0];
  return `${error?.instancePath === "" ? name : error?.instancePath} ${error?.message}`;
}

/** What is wrong with arguments by the schema of what is called; undefined: nothing. Throws where that is no schema. */
export function argumentFault(parameters: object, given: unknown): string | undefined {
  const validate = ofArguments.get(parameters) ?? compile(parameters, "auto");
  ofArguments.set(parameters, validate);
  return validate(given) ? undefined : `the arguments do not fit: ${whyNot(validate, "the object")}`;
}

const CACHED = 256;

export const schema = define({
  type: "schema",
  summary: "JSON that satisfies a JSON Schema (2020-12, 2019-09, draft-07)",
  where: "worker",
  readers,
  create(options) {
    const { field = "schema" } = options;
    if (options.schema !== undefined && options.field !== undefined)
      throw idleOption("schema", "field", 'beside "schema"');
    const compiled = new Map<string, ValidateFunction | Error>();
    const given = (row: Row): unknown => options.schema ?? row[field];

    const validator = (row: Row): ValidateFunction | Error => {
      const source = given(row);
      if (source === undefined) return new Error("there is none");
      const key = typeof source === "string" ? source : JSON.stringify(source);
      const known = compiled.get(key);
      if (known !== undefined) return known;
      let made: ValidateFunction | Error;
      try {
        made = compile(source, options.draft);
      } catch (error) {
        made = error instanceof Error ? error : new Error(String(error));
      }
      if (compiled.size >= CACHED) compiled.clear();
      compiled.set(key, made);
      return made;
    };

    return {
      check(row) {
        const made = validator(row);
        if (!(made instanceof Error)) return;
        throw rowError("schema", field, `a valid JSON Schema (${made.message})`, given(row));
      },
      judge({ completion, row }) {
        const validate = validator(row);
        if (validate instanceof Error) return { reward: null, reason: "gold", detail: { message: validate.message } };
        const found = extractJson(completion, options.tag);
        if (found === undefined) return noAnswer("JSON");
        const detail = { extracted: show(found.value), from: found.from };
        if (validate(found.value)) return { reward: 1, detail };
        const why = whyNot(validate, "the value");
        return { reward: options.parsed, reason: "schema", detail: { ...detail, why } };
      },
    };
  },
});
