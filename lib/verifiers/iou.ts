/**
 * Overlap of regions: boxes in a plane, spans in time. What is predicted in vain counts against the answer as much as what is
 * missed, so neither one easy box nor a spray of boxes is rewarded.
 */
import { define, noAnswer } from "./definition.js";
import { finalAnswer } from "./extract.js";
import { extractJson } from "./json-extract.js";
import { numbersIn } from "./numeric.js";
import { integer, number, oneOf, optional, rowError, text } from "./options.js";

/** [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2. */
type Box = readonly [number, number, number, number];
/** [start, end] with start <= end. */
type Span = readonly [number, number];

/** Lists of `size` finite numbers: one flat list, or a list of lists; undefined for anything else. */
function tuples(given: unknown, size: number): number[][] | undefined {
  const value = typeof given === "string" ? (extractJson(given)?.value ?? given) : given;
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const rows: unknown[] = Array.isArray(value[0]) ? value : [value];
  const finite = (x: unknown) => typeof x === "number" && Number.isFinite(x);
  const ok = rows.every((row): row is number[] => Array.isArray(row) && row.length === size && row.every(finite));
  return ok ? rows : undefined;
}

function toBox([a, b, c, d]: readonly number[], format: "xyxy" | "xywh"): Box | undefined {
  const box: Box = format === "xyxy" ? [a!, b!, c!, d!] : [a!, b!, a! + c!, b! + d!];
  return box[2] >= box[0] && box[3] >= box[1] ? box : undefined;
}

/** Intersection over union of two boxes; 0 for boxes without area. */
export function boxIou(a: Box, b: Box): number {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = (r: Box) => (r[2] - r[0]) * (r[3] - r[1]);
  const union = area(a) + area(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}

/** Largest total of w[i][j] over one-to-one assignments (Hungarian method, O(n^2 m) for n <= m rows and columns). */
export function bestAssignment(weights: readonly (readonly number[])[]): number {
  const n = weights.length;
  const m = weights[0]?.length ?? 0;
  if (n > m) return bestAssignment(Array.from({ length: m }, (_, j) => weights.map((row) => row[j]!)));
  const u = new Float64Array(n + 1);
  const v = new Float64Array(m + 1);
  const owner = new Int32Array(m + 1);
  for (let i = 1; i <= n; i++) {
    const way = new Int32Array(m + 1);
    const slack = new Float64Array(m + 1).fill(Number.POSITIVE_INFINITY);
    const used = new Uint8Array(m + 1);
    let j0 = 0;
    owner[0] = i;
    do {
      used[j0] = 1;
      const row = owner[j0]!;
      let delta = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let j = 1; j <= m; j++) {
        if (used[j]) continue;
        const cost = -weights[row - 1]![j - 1]! - u[row]! - v[j]!;
        if (cost < slack[j]!) {
          slack[j] = cost;
          way[j] = j0;
        }
        if (slack[j]! < delta) {
          delta = slack[j]!;
          next = j;
        }
      }
      for (let j = 0; j <= m; j++) {
        if (used[j]) {
          u[owner[j]!]! += delta;
          v[j]! -= delta;
        } else slack[j]! -= delta;
      }
      j0 = next;
    } while (owner[j0] !== 0);
    for (; j0 !== 0; j0 = way[j0]!) owner[j0] = owner[way[j0]!]!;
  }
  let total = 0;
  for (let j = 1; j <= m; j++) if (owner[j] !== 0) total += weights[owner[j]! - 1]![j - 1]!;
  return total;
}

/** Spans as a union of disjoint ones, in order. */
function merged(spans: readonly Span[]): Span[] {
  const out: [number, number][] = [];
  for (const [start, end] of [...spans].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else out.push([start, end]);
  }
  return out;
}

/** Measure of the intersection over measure of the union of two sets of spans. */
export function spanIou(a: readonly Span[], b: readonly Span[]): number {
  const size = (spans: readonly Span[]) => spans.reduce((sum, [start, end]) => sum + end - start, 0);
  const left = merged(a);
  const right = merged(b);
  const union = size(merged([...left, ...right]));
  return union > 0 ? (size(left) + size(right) - union) / union : 0;
}

const shared = {
  /** Field with the right regions: a list of numbers, a list of such lists, or JSON text of one. */
  answer: text("answer"),
  /** Accept only an answer inside this tag; default: JSON in the completion. */
  tag: optional(text()),
  /** Reward 1 or 0 at this IoU instead of the IoU itself. */
  threshold: optional(number(undefined, 0, 1)),
};

const boxReaders = {
  ...shared,
  format: oneOf(["xyxy", "xywh"], "xyxy"),
  /** More predicted boxes than this are worth 0. */
  maxBoxes: integer(100, 1, 200),
};

const finish = (iou: number, threshold: number | undefined) =>
  threshold === undefined ? Math.min(1, Math.max(0, iou)) : iou >= threshold ? 1 : 0;

export const box = define({
  type: "box-iou",
  summary: "IoU of bounding boxes, best one-to-one matching over max(predicted, right) boxes",
  where: "inline",
  readers: boxReaders,
  create(options) {
    const boxes = (given: unknown) => {
      const all = tuples(given, 4)?.map((row) => toBox(row, options.format));
      return all?.every((one): one is Box => one !== undefined) ? all : undefined;
    };
    return {
      check(row) {
        const right = boxes(row[options.answer]);
        if (right === undefined || right.length > options.maxBoxes || right.some((one) => boxIou(one, one) !== 1)) {
          const expected = `1 to ${options.maxBoxes} boxes [${[...options.format].join(", ")}] with an area`;
          throw rowError("box-iou", options.answer, expected, row[options.answer]);
        }
      },
      judge({ completion, row }) {
        const expected = boxes(row[options.answer]);
        if (expected === undefined) return { reward: null, reason: "gold" };
        const json = extractJson(completion, options.tag);
        const said = boxes(json?.value);
        if (said === undefined) return noAnswer(expected);
        const detail = { extracted: said.slice(0, 20), from: json?.from, expected };
        if (said.length > options.maxBoxes) return { reward: 0, reason: "too-many", detail };
        const total = bestAssignment(said.map((one) => expected.map((right) => boxIou(one, right))));
        const iou = total / Math.max(said.length, expected.length);
        return { reward: finish(iou, options.threshold), detail: { ...detail, iou } };
      },
    };
  },
});

export const span = define({
  type: "span-iou",
  summary: "IoU of time spans: measure of the intersection over measure of the union",
  where: "inline",
  readers: shared,
  create(options) {
    const spans = (given: unknown) => {
      const all = tuples(given, 2) as Span[] | undefined;
      return all?.every(([start, end]) => start <= end) ? all : undefined;
    };
    /** JSON, or two numbers in the stated answer: "from 3.5 to 7". */
    const stated = (completion: string) => {
      const json = spans(extractJson(completion, options.tag)?.value);
      if (json !== undefined) return json;
      const said = finalAnswer(completion, options.tag, true);
      const pair =
        said === undefined ? [] : numbersIn(said.text.replace(/(\d)\s{0,2}[-–—]\s{0,2}(?=\d)/g, "$1 to "), false);
      return spans(pair);
    };
    return {
      check(row) {
        const right = spans(row[options.answer]);
        if (right === undefined || spanIou(right, right) !== 1) {
          throw rowError("span-iou", options.answer, "spans [start, end] with a length", row[options.answer]);
        }
      },
      judge({ completion, row }) {
        const expected = spans(row[options.answer]);
        if (expected === undefined) return { reward: null, reason: "gold" };
        const said = stated(completion);
        if (said === undefined) return noAnswer(expected);
        const iou = spanIou(said, expected);
        return { reward: finish(iou, options.threshold), detail: { extracted: said.slice(0, 20), expected, iou } };
      },
    };
  },
});
