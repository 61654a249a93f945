import { isDeepStrictEqual } from "node:util";
import type { Architecture } from "./architecture.js";
import type { ModelConfig } from "./config.js";
import type { Fields } from "./config-fields.js";
import type { RopeConfig } from "./rope.js";

function parseScaledRope(f: Fields, theta: number, type: unknown, maxLength: number): RopeConfig {
  f.only("partial_rotary_factor", 1);
  if (type === "default") return { type, theta };
  const factor = f.number("factor");
  if (factor <= 0) throw f.fail(`expected a factor above 0 but found ${factor}`);
  if (type === "linear") return { type, theta, factor };
  if (type !== "llama3") {
    throw f.fail(`rope type ${JSON.stringify(type)} is not supported: expected "default", "linear" or "llama3"`);
  }
  return {
    type,
    theta,
    factor,
    lowFreqFactor: f.number("low_freq_factor"),
    highFreqFactor: f.number("high_freq_factor"),
    originalMaxLength: f.size("original_max_position_embeddings", maxLength),
  };
}

const ropeOf = (scaling: Fields, theta: number, maxLength: number): RopeConfig =>
  parseScaledRope(scaling, theta, scaling.get("rope_type") ?? scaling.get("type") ?? "default", maxLength);

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

function positiveTheta(f: Fields, name: string, usual?: number): number {
  const theta = f.number(name, usual);
  if (theta > 0) return theta;
  throw f.fail(`expected a ${name} above 0 but found ${theta}`);
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
  const theta = positiveTheta(said ? newer : f, "rope_theta", architecture.theta);
  const scaling = newer ?? older;
  if (scaling === undefined) return { type: "default", theta };
  const rope = ropeOf(scaling, theta, maxLength);
  // Readers differ in which of the two they follow: a model must not depend on that.
  if (newer !== undefined && older !== undefined && !isDeepStrictEqual(ropeOf(older, theta, maxLength), rope)) {
    throw f.fail("rope_parameters and rope_scaling say different things: expected one of them, or both alike");
  }
  return rope;
}

/** Of layers that slide, where they have positions of their own; older files scale the others alone. */
export function parseLocalRope(f: Fields, maxLength: number, { localTheta }: Architecture): RopeConfig | undefined {
  if (localTheta === undefined) return undefined;
  const newer = f.object("rope_parameters")?.object("sliding_attention");
  const said = newer?.get("rope_theta") !== undefined;
  const theta = said ? positiveTheta(newer, "rope_theta") : positiveTheta(f, "rope_local_base_freq", localTheta);
  return newer === undefined ? { type: "default", theta } : ropeOf(newer, theta, maxLength);
}

function ropeParameters(rope: RopeConfig): Record<string, unknown> {
  const base = { rope_theta: rope.theta, rope_type: rope.type };
  if (rope.type === "default") return base;
  if (rope.type === "linear") return { ...base, factor: rope.factor };
  return {
    ...base,
    factor: rope.factor,
    low_freq_factor: rope.lowFreqFactor,
    high_freq_factor: rope.highFreqFactor,
    original_max_position_embeddings: rope.originalMaxLength,
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
