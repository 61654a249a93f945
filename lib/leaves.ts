import { isObject } from "./check.js";

/** The leaves of a tree of settings by their paths, as JSON: { "objective.creditMix": "1", ... }. A list is a leaf. */
export function leavesOf(value: unknown, path = ""): [string, string][] {
  if (!isObject(value)) return [[path, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) => leavesOf(inner, path === "" ? name : `${path}.${name}`));
}

/** Paths at which trees are not all the same, one that is missing in some included. */
export function differingPaths(trees: readonly unknown[]): string[] {
  const maps = trees.map((tree) => new Map(leavesOf(tree)));
  const paths = new Set(maps.flatMap((map) => [...map.keys()]));
  return [...paths].filter((path) => new Set(maps.map((map) => map.get(path))).size > 1);
}
