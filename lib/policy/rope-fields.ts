import { isDeepStrictEqual } from "node:util";
import { ARCHITECTURES, type Architecture, type RopeType } from "./architecture.js";
import type { NewConfig } from "./config.js";
import type { Fields } from "./config-fields.js";
import { type PlainRope, type RopeConfig, yarnScale } from "./rope.js";

/** Of null and of 0 transformers takes what it takes where nothing is said. */
const orUndefined = (f: Fields, name: string): number | undefined =>
  f.get(name) === undefined || f.get(name) === 0 ? undefined : f.positive(name);

function parseYarn(f: Fields, theta: number, maxLength: number, original: number, nested: boolean): RopeConfig {
  if (theta <= 1) throw f.fail(`expected a rope_theta above 1 with "yarn" but found ${theta}`);
  // null is the ratio of the two lengths; a file that says nothing is read by nobody.
  if (!f.has("factor")) f.number("factor");
  const factor = f.positive("factor", maxLength / original);
  const [scale, allDims] = [orUndefined(f, "mscale"), orUndefined(f, "mscale_all_dim")];
  const usual =
    scale === undefined || allDims === undefined
      ? yarnScale(factor)
      : yarnScale(factor, scale) / yarnScale(factor, allDims);
  // Where layers differ, transformers looks for it beside them and finds nothing.
  if (nested) f.only("truncate", true);
  return {
    type: "yarn",
    theta,
    factor,
    originalMaxLength: original,
    betaFast: orUndefined(f, "beta_fast") ?? 32,
    betaSlow: orUndefined(f, "beta_slow") ?? 1,
    attentionFactor: f.positive("attention_factor", usual),
    truncate: f.boolean("truncate", true),
  };
}

/** One number above 0 for each pair. */
function pairFactors(f: Fields, name: string, pairs: number): number[] {
  const factors: unknown = f.get(name);
  const isFactor = (value: unknown) => typeof value === "number" && Number.isFinite(value) && value > 0;
  if (Array.isArray(factors) && factors.length === pairs && factors.every(isFactor)) return [...(factors as number[])];
  throw f.fail(`expected ${pairs} numbers above 0 for ${name} but found ${JSON.stringify(factors)}`);
}

function parseLongRope(f: Fields, theta: number, { maxLength, rotaryDim }: RopePlace, original: number): RopeConfig {
  const factor = f.positive("factor", maxLength / original);
  const usual = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return {
    type: "longrope",
    theta,
    originalMaxLength: original,
    shortFactors: pairFactors(f, "short_factor", rotaryDim / 2),
    longFactors: pairFactors(f, "long_factor", rotaryDim / 2),
    attentionFactor: f.positive("attention_factor", usual),
    scaledMaxLength: maxLength,
  };
}

/** Where a model's files say something of positions. */
interface RopePlace {
  readonly architecture: Architecture;
  readonly maxLength: number;
  /** Numbers of each head that are rotated. */
  readonly rotaryDim: number;
  /** `original_max_position_embeddings` of the file as a whole. */
  readonly original: number | undefined;
  /** For layers of one kind alone. */
  readonly nested: boolean;
}

/** What a model's positions depend on beside its files' words on them. */
type RopeShape = Pick<RopePlace, "architecture" | "maxLength" | "rotaryDim">;

function placeIn(f: Fields, shape: RopeShape, nested: boolean): RopePlace {
  const name = "original_max_position_embeddings";
  const usual = shape.architecture.originalMaxLength;
  const said = !nested && (usual !== undefined || f.get(name) !== undefined);
  return { ...shape, nested, original: said ? f.size(name, usual) : undefined };
}

/** What is said for all positions goes before what is said of their scaling, but nobody should have to know that. */
function originalLength(f: Fields, { maxLength, original }: RopePlace): number {
  const length = f.size("original_max_position_embeddings", original ?? maxLength);
  if (original === undefined || original === length) return length;
  throw f.fail(
    `original_max_position_embeddings ${length} here and ${original} beside it: expected one of them, or both alike`,
  );
}

/** What a model's files call it, as RopeConfig does. */
function ropeTypeOf(f: Fields, { ropeTypes }: Architecture): RopeType {
  const said = f.get("rope_type") ?? f.get("type") ?? "default";
  const type = typeof said === "string" && Object.hasOwn(ropeTypes, said) ? ropeTypes[said] : undefined;
  if (type !== undefined) return type;
  const names = Object.keys(ropeTypes).map((name) => JSON.stringify(name));
  const expected = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  throw f.fail(`rope type ${JSON.stringify(said)} is not supported: expected ${expected}`);
}

function ropeOf(f: Fields, theta: number, place: RopePlace): RopeConfig {
  const type = ropeTypeOf(f, place.architecture);
  if (!place.architecture.partialRotary) f.only("partial_rotary_factor", 1);
  if (type === "default") return { type, theta };
  if (type === "longrope") return parseLongRope(f, theta, place, originalLength(f, place));
  if (type === "yarn") return parseYarn(f, theta, place.maxLength, originalLength(f, place), place.nested);
  const factor = f.positive("factor");
  if (type === "linear") return { type, theta, factor };
  return {
    type,
    theta,
    factor,
    lowFreqFactor: f.number("low_freq_factor"),
    highFreqFactor: f.number("high_freq_factor"),
    originalMaxLength: originalLength(f, place),
  };
}

/** Numbers of each head that are rotated, by `partial_rotary_factor`, where a model of this kind has one. */
export function parseRotaryDim(f: Fields, headDim: number, { partialRotary }: Architecture): number {
  if (!partialRotary) {
    f.only("partial_rotary_factor", 1);
    return headDim;
  }
  const places = [f.object("rope_parameters"), f.object("rope_scaling"), f];
  const said = places.filter((place) => place?.get("partial_rotary_factor") !== undefined);
  const factors = said.map((place) => (place as Fields).positive("partial_rotary_factor"));
  const [factor = 1, ...others] = factors;
  if (others.some((other) => other !== factor)) {
    throw f.fail(`partial_rotary_factor is said to be ${factors.join(" and ")}: expected one of them, or all alike`);
  }
  const rotaryDim = Math.trunc(headDim * factor);
  if (rotaryDim >= 2 && rotaryDim % 2 === 0 && rotaryDim <= headDim) return rotaryDim;
  throw f.fail(
    `partial_rotary_factor ${factor} of head_dim ${headDim} is not supported: expected an even number of 2 to ${headDim} to be rotated`,
  );
}

/** Layers whose number from 1 on the interval divides have 0, the others 1. */
const ropeLayers = (interval: number, layers: number): number[] =>
  Array.from({ length: layers }, (_, i) => Number((i + 1) % interval !== 0));

/** `no_rope_layers` (0: no positions), else by `no_rope_layer_interval`. Undefined: every layer has positions. */
export function parseNoRope(f: Fields, layers: number): number | undefined {
  const interval = f.size("no_rope_layer_interval", 4);
  const listed = f.get("no_rope_layers");
  if (listed === undefined) return interval <= layers ? interval : undefined;
  if (!Array.isArray(listed) || listed.length < layers || listed.some((flag) => flag !== 0 && flag !== 1)) {
    throw f.fail(`expected ${layers} numbers 0 or 1 for no_rope_layers but found ${JSON.stringify(listed)}`);
  }
  const own = listed.slice(0, layers);
  const first = own.indexOf(0);
  if (first < 0) return undefined;
  if (isDeepStrictEqual(own, ropeLayers(first + 1, layers))) return first + 1;
  throw f.fail(`no_rope_layers ${JSON.stringify(listed)} is not supported: expected a 0 for every n-th layer alone`);
}

/** What newer files say, and of which layers: of all, or, in models whose layers differ, of those that see all tokens. */
function newerRope(f: Fields, { localTheta }: Architecture): Fields | undefined {
  const outer = f.object("rope_parameters");
  const full = outer?.object("full_attention");
  if (localTheta === undefined) {
    outer?.only("sliding_attention");
    return full ?? outer;
  }
  for (const name of ["rope_type", "rope_theta"]) outer?.only(name);
  return full;
}

/** `rope_parameters` (newer files), or `rope_theta` and `rope_scaling` at the top level (older ones). */
export function parseRope(f: Fields, shape: RopeShape): RopeConfig {
  const { architecture } = shape;
  const newer = newerRope(f, architecture);
  const older = f.object("rope_scaling");
  const said = newer?.get("rope_theta") !== undefined;
  const theta = (said ? newer : f).positive("rope_theta", architecture.theta);
  const scaling = newer ?? older;
  if (scaling === undefined) return { type: "default", theta };
  const place = placeIn(f, shape, architecture.localTheta !== undefined);
  const rope = ropeOf(scaling, theta, place);
  // Readers differ in which of the two they follow: a model must not depend on that.
  if (newer !== undefined && older !== undefined && !isDeepStrictEqual(ropeOf(older, theta, place), rope)) {
    throw f.fail("rope_parameters and rope_scaling say different things: expected one of them, or both alike");
  }
  return rope;
}

function localThetaOf(f: Fields, { localTheta, localThetaField }: Architecture): number {
  if (localThetaField !== undefined) return f.positive(localThetaField, localTheta);
  // Some versions of transformers take rope_theta for layers that slide, newer ones their own default.
  const theta = f.positive("rope_theta", localTheta);
  if (theta === localTheta) return theta;
  throw f.fail(`rope_theta ${theta} may or may not be meant for layers that slide: expected both in rope_parameters`);
}

/** Of layers that slide, where they have positions of their own; older files scale the others alone. */
export function parseLocalRope(f: Fields, shape: RopeShape): RopeConfig | undefined {
  if (shape.architecture.localTheta === undefined) return undefined;
  const newer = f.object("rope_parameters")?.object("sliding_attention");
  const said = newer?.get("rope_theta") !== undefined;
  const theta = said ? newer.positive("rope_theta") : localThetaOf(f, shape.architecture);
  return newer === undefined ? { type: "default", theta } : ropeOf(newer, theta, placeIn(f, shape, true));
}

function ropeParameters(rope: PlainRope): Record<string, unknown> {
  const base = { rope_theta: rope.theta, rope_type: rope.type };
  if (rope.type === "default") return base;
  if (rope.type === "linear") return { ...base, factor: rope.factor };
  const scaled = { ...base, factor: rope.factor, original_max_position_embeddings: rope.originalMaxLength };
  if (rope.type === "yarn") {
    const { betaFast, betaSlow, attentionFactor, truncate } = rope;
    const yarn = { beta_fast: betaFast, beta_slow: betaSlow, attention_factor: attentionFactor };
    return { ...scaled, ...yarn, ...(truncate === false && { truncate }) };
  }
  return {
    ...scaled,
    low_freq_factor: rope.lowFreqFactor,
    high_freq_factor: rope.highFreqFactor,
  };
}

/** What config.json says of positions, in the newer form with the older form's names beside it. */
export function ropeFields(c: NewConfig): Record<string, unknown> {
  const rope = ropeParameters(c.rope);
  const { localThetaField } = ARCHITECTURES[c.modelType];
  const local = c.localRope && {
    rope_parameters: { full_attention: rope, sliding_attention: ropeParameters(c.localRope) },
    ...(localThetaField !== undefined && { [localThetaField]: c.localRope.theta }),
  };
  return {
    no_rope_layers:
      c.modelType === "smollm3" ? ropeLayers(c.noRopeInterval ?? c.numLayers + 1, c.numLayers) : undefined,
    rope_parameters: rope,
    rope_scaling: c.rope.type === "default" ? null : rope,
    rope_theta: c.rope.theta,
    ...local,
  };
}
