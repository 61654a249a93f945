import { isDeepStrictEqual } from "node:util";
import type { Architecture } from "./architecture.js";
import type { ModelConfig } from "./config.js";
import type { Fields } from "./config-fields.js";
import { type RopeConfig, yarnScale } from "./rope.js";

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

/** Where a model's files say something of positions. */
interface RopePlace {
  readonly maxLength: number;
  /** `original_max_position_embeddings` of the file as a whole. */
  readonly original: number | undefined;
  /** For layers of one kind alone. */
  readonly nested: boolean;
}

function placeIn(f: Fields, maxLength: number, nested: boolean): RopePlace {
  const name = "original_max_position_embeddings";
  return { maxLength, nested, original: nested || f.get(name) === undefined ? undefined : f.size(name) };
}

/** What is said for all positions goes before what is said of their scaling, but nobody should have to know that. */
function originalLength(f: Fields, { maxLength, original }: RopePlace): number {
  const length = f.size("original_max_position_embeddings", original ?? maxLength);
  if (original === undefined || original === length) return length;
  throw f.fail(
    `original_max_position_embeddings ${length} here and ${original} beside it: expected one of them, or both alike`,
  );
}

function parseScaledRope(f: Fields, theta: number, type: unknown, place: RopePlace): RopeConfig {
  f.only("partial_rotary_factor", 1);
  if (type === "default") return { type, theta };
  if (type === "yarn") return parseYarn(f, theta, place.maxLength, originalLength(f, place), place.nested);
  const factor = f.positive("factor");
  if (type === "linear") return { type, theta, factor };
  if (type !== "llama3") {
    throw f.fail(
      `rope type ${JSON.stringify(type)} is not supported: expected "default", "linear", "llama3" or "yarn"`,
    );
  }
  return {
    type,
    theta,
    factor,
    lowFreqFactor: f.number("low_freq_factor"),
    highFreqFactor: f.number("high_freq_factor"),
    originalMaxLength: originalLength(f, place),
  };
}

const ropeOf = (scaling: Fields, theta: number, place: RopePlace): RopeConfig =>
  parseScaledRope(scaling, theta, scaling.get("rope_type") ?? scaling.get("type") ?? "default", place);

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
export function parseRope(f: Fields, maxLength: number, architecture: Architecture): RopeConfig {
  const newer = newerRope(f, architecture);
  const older = f.object("rope_scaling");
  const said = newer?.get("rope_theta") !== undefined;
  const theta = (said ? newer : f).positive("rope_theta", architecture.theta);
  const scaling = newer ?? older;
  if (scaling === undefined) return { type: "default", theta };
  const place = placeIn(f, maxLength, architecture.localTheta !== undefined);
  const rope = ropeOf(scaling, theta, place);
  // Readers differ in which of the two they follow: a model must not depend on that.
  if (newer !== undefined && older !== undefined && !isDeepStrictEqual(ropeOf(older, theta, place), rope)) {
    throw f.fail("rope_parameters and rope_scaling say different things: expected one of them, or both alike");
  }
  return rope;
}

/** Of layers that slide, where they have positions of their own; older files scale the others alone. */
export function parseLocalRope(f: Fields, maxLength: number, { localTheta }: Architecture): RopeConfig | undefined {
  if (localTheta === undefined) return undefined;
  const newer = f.object("rope_parameters")?.object("sliding_attention");
  const said = newer?.get("rope_theta") !== undefined;
  const theta = said ? newer.positive("rope_theta") : f.positive("rope_local_base_freq", localTheta);
  return newer === undefined ? { type: "default", theta } : ropeOf(newer, theta, placeIn(f, maxLength, true));
}

function ropeParameters(rope: RopeConfig): Record<string, unknown> {
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
export function ropeFields(c: ModelConfig): Record<string, unknown> {
  const rope = ropeParameters(c.rope);
  const local = c.localRope && {
    rope_parameters: { full_attention: rope, sliding_attention: ropeParameters(c.localRope) },
    rope_local_base_freq: c.localRope.theta,
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
