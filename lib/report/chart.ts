import { duration } from "../duration.js";
import { type Html, html } from "./html.js";
import { mean, short, ticks } from "./numbers.js";

export interface Point {
  readonly x: number;
  readonly y: number;
  /** A band around the line. */
  readonly low?: number;
  readonly high?: number;
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** 0 to 5: the colour. Default: the place in the chart. */
  readonly color?: number;
}

type Unit = "number" | "share" | "milliseconds";

export interface Chart {
  readonly title: string;
  /** What is to be seen, for whoever reads the curve for the first time. */
  readonly about: string;
  readonly series: readonly Series[];
  readonly unit?: Unit;
  /** Values that the vertical axis covers in any case. */
  readonly include?: readonly number[];
  /** Dashed horizontal lines. */
  readonly guides?: readonly number[];
  readonly xName?: string;
}

/** Colours of the style sheet; a chart with more series begins again. */
export const COLORS = 6;
const [WIDTH, HEIGHT] = [360, 190];
const EDGE = { left: 46, right: 10, top: 8, bottom: 24 };
/** Points that are drawn of a line: more than a chart of this width can show. */
const MOST_POINTS = 240;

const FORMATS: Readonly<Record<Unit, (value: number) => string>> = {
  number: short,
  share: (value) => `${Number((100 * value).toPrecision(3))}%`,
  milliseconds: duration,
};

const formatter = (unit: Unit = "number"): ((value: number) => string) => FORMATS[unit];

/** A long line as the means of equal stretches; a short one as it is. */
export function thinned(points: readonly Point[], most = MOST_POINTS): readonly Point[] {
  if (points.length <= most) return points;
  return Array.from({ length: most }, (_, i) => {
    const from = Math.floor((i * points.length) / most);
    const some = points.slice(from, Math.floor(((i + 1) * points.length) / most));
    const banded = some.every((p) => p.low !== undefined && p.high !== undefined);
    return {
      x: some.at(-1)!.x,
      y: mean(some.map((p) => p.y)),
      ...(banded && { low: mean(some.map((p) => p.low!)), high: mean(some.map((p) => p.high!)) }),
    };
  });
}

interface Axis {
  readonly ticks: readonly number[];
  at(value: number): number;
}

function axis(values: readonly number[], from: number, to: number, count: number): Axis {
  // Not Math.min(...): a long run has more values than a call has arguments.
  const low = values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const marks = ticks(low, high, count);
  const [first, last] = [marks[0]!, marks.at(-1)!];
  return { ticks: marks, at: (value) => from + ((value - first) / (last - first)) * (to - from) };
}

const at = (n: number) => n.toFixed(1);

/** Classes of a series' marks: its colour, and dashes where the colours are used for a second time. */
const classOf = (color: number): string => `c${color % COLORS}${color >= COLORS ? " again" : ""}`;

function seriesMarks({ points, color }: Series & { color: number }, x: Axis, y: Axis): Html {
  const own = classOf(color);
  const path = points.map((p) => `${at(x.at(p.x))},${at(y.at(p.y))}`).join(" ");
  const banded = points.filter((p) => p.low !== undefined && p.high !== undefined);
  const edge = (of: "low" | "high") => banded.map((p) => `${at(x.at(p.x))},${at(y.at(p[of]!))}`);
  const band = [...edge("high"), ...edge("low").reverse()].join(" ");
  const dots = points.length <= 12;
  return html`${banded.length > 1 && html`<polygon class="band ${own}" points="${band}"/>`}<polyline class="line ${own}" points="${path}"/>${
    dots && points.map((p) => html`<circle class="dot ${own}" cx="${at(x.at(p.x))}" cy="${at(y.at(p.y))}" r="2.5"/>`)
  }`;
}

/** What the pointer shows: the values of every series, by x. Read by the page's script, as text. */
function readings(series: readonly Series[], x: Axis, unit: Unit | undefined): string {
  const format = formatter(unit);
  const rows = new Map<number, [string, string][]>();
  for (const { name, points } of series) {
    for (const p of points) {
      const band = p.low === undefined ? "" : ` (${format(p.low)} to ${format(p.high!)})`;
      rows.set(p.x, [...(rows.get(p.x) ?? []), [name, format(p.y) + band]]);
    }
  }
  const sorted = [...rows].sort(([a], [b]) => a - b);
  return JSON.stringify(sorted.map(([value, told]) => [Number(at(x.at(value))), short(value), told]));
}

function legend(series: readonly Series[]): Html {
  return html`<span class="legend">${series.map(
    ({ name, color }) => html`<span><i class="key ${classOf(color ?? 0)}"></i>${name}</span>`,
  )}</span>`;
}

/** A line chart as a figure; undefined where no series has a point. */
export function chart({
  title,
  about,
  series,
  unit,
  include = [],
  guides = [],
  xName = "step",
}: Chart): Html | undefined {
  const finite = (p: Point) => [p.x, p.y, p.low ?? 0, p.high ?? 0].every(Number.isFinite);
  const shown = series
    .map((s, i) => ({ ...s, color: s.color ?? i, points: thinned(s.points.filter(finite)) }))
    .filter((s) => s.points.length > 0);
  if (shown.length === 0) return undefined;
  const all = shown.flatMap((s) => s.points);
  const x = axis(
    all.map((p) => p.x),
    EDGE.left,
    WIDTH - EDGE.right,
    5,
  );
  const heights = all.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).concat(include, guides);
  const y = axis(heights, HEIGHT - EDGE.bottom, EDGE.top, 4);
  const format = formatter(unit);
  const grid = y.ticks.map(
    (tick) =>
      html`<line class="grid" x1="${EDGE.left}" x2="${WIDTH - EDGE.right}" y1="${at(y.at(tick))}" y2="${at(y.at(tick))}"/><text class="axis" x="${EDGE.left - 5}" y="${at(y.at(tick) + 3.5)}" text-anchor="end">${format(tick)}</text>`,
  );
  // A short run has marks between two steps.
  const steps = x.ticks
    .filter(Number.isInteger)
    .map(
      (tick) =>
        html`<text class="axis" x="${at(x.at(tick))}" y="${HEIGHT - 8}" text-anchor="middle">${short(tick)}</text>`,
    );
  const lines = guides.map(
    (guide) =>
      html`<line class="guide" x1="${EDGE.left}" x2="${WIDTH - EDGE.right}" y1="${at(y.at(guide))}" y2="${at(y.at(guide))}"/>`,
  );
  const last = shown.map((s) => `${s.name} ${format(s.points.at(-1)!.y)}`).join(", ");
  return html`<figure class="chart" data-readings="${readings(shown, x, unit)}" data-x="${xName}">
<figcaption><b>${title}</b> ${shown.length > 1 && legend(shown)}<small>${about}</small></figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}; at the end: ${last}">${grid}${steps}${lines}${shown.map((s) => seriesMarks(s, x, y))}<line class="cross" y1="${EDGE.top}" y2="${HEIGHT - EDGE.bottom}"/></svg><output class="tip"></output>
</figure>`;
}
