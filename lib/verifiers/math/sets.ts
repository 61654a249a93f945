/** Sets of real numbers as sorted, disjoint pieces; end points keep the expression that they came from. */
import { type Expr, num } from "./ast.js";
import { exact, toNumber, valueAt } from "./evaluate.js";

interface End {
  readonly value: number;
  readonly e: Expr;
}

interface Piece {
  readonly lo: End;
  readonly hi: End;
  readonly loOpen: boolean;
  readonly hiOpen: boolean;
}

export type RealSet = readonly Piece[];

const INF: Expr = { k: "const", name: "inf" };
const PLUS: End = { value: Number.POSITIVE_INFINITY, e: INF };
const MINUS: End = { value: Number.NEGATIVE_INFINITY, e: { k: "mul", args: [num(-1), INF] } };

/** Two ends nearer than this are one point: they were computed in different ways. */
const near = (a: number, b: number) =>
  a === b ||
  (Number.isFinite(a) && Number.isFinite(b) && Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a), Math.abs(b)));

/** A real constant or plus or minus infinity. */
export function endOf(e: Expr): End | undefined {
  if (e.k === "const" && e.name === "inf") return PLUS;
  if (e.k === "mul" && e.args.length === 2 && e.args[1]!.k === "const" && e.args[1]!.name === "inf") {
    const sign = exact(e.args[0]!);
    return sign === undefined ? undefined : sign.n < 0n ? MINUS : PLUS;
  }
  const fraction = exact(e);
  if (fraction !== undefined) return { value: toNumber(fraction), e };
  const z = valueAt(e, new Map());
  return z !== undefined && Math.abs(z.im) < 1e-12 ? { value: z.re, e } : undefined;
}

/** Sorted and merged; empty pieces dropped. */
function normalize(pieces: readonly Piece[]): RealSet {
  const full = pieces.filter(({ lo, hi, loOpen, hiOpen }) =>
    near(lo.value, hi.value) ? !loOpen && !hiOpen : lo.value < hi.value,
  );
  const out: Piece[] = [];
  for (const piece of [...full].sort((a, b) => a.lo.value - b.lo.value || Number(a.loOpen) - Number(b.loOpen))) {
    const last = out.at(-1);
    const touches =
      last !== undefined &&
      (near(piece.lo.value, last.hi.value) ? !(piece.loOpen && last.hiOpen) : piece.lo.value < last.hi.value);
    if (last === undefined || !touches) {
      out.push(piece);
      continue;
    }
    const same = near(piece.hi.value, last.hi.value);
    const longer = !same && piece.hi.value > last.hi.value;
    const hiOpen = same ? piece.hiOpen && last.hiOpen : longer ? piece.hiOpen : last.hiOpen;
    const loOpen = near(piece.lo.value, last.lo.value) ? piece.loOpen && last.loOpen : last.loOpen;
    out[out.length - 1] = { lo: last.lo, hi: longer ? piece.hi : last.hi, loOpen, hiOpen };
  }
  return out;
}

export const union = (a: RealSet, b: RealSet): RealSet => normalize([...a, ...b]);

function complement(set: RealSet): RealSet {
  const out: Piece[] = [];
  let lo = MINUS;
  let loOpen = true;
  for (const piece of set) {
    out.push({ lo, loOpen, hi: piece.lo, hiOpen: !piece.loOpen });
    lo = piece.hi;
    loOpen = !piece.hiOpen;
  }
  out.push({ lo, loOpen, hi: PLUS, hiOpen: true });
  return normalize(
    out.filter(({ lo: a, hi: b }) => a.value < b.value || (near(a.value, b.value) && Number.isFinite(a.value))),
  );
}

export const intersect = (a: RealSet, b: RealSet): RealSet => complement(union(complement(a), complement(b)));

function interval(lo: End, hi: End, loOpen: boolean, hiOpen: boolean): RealSet {
  const open = (end: End, asked: boolean) => asked || !Number.isFinite(end.value);
  return normalize([{ lo, hi, loOpen: open(lo, loOpen), hiOpen: open(hi, hiOpen) }]);
}

const point = (end: End): RealSet => interval(end, end, false, false);

/** Solutions of `x op end` for real x; the mirror image in 0 added for `absolute`, that is for |x| op end. */
export function solutions(op: string, end: End): RealSet | undefined {
  if (op === "<" || op === "<=") return interval(MINUS, end, true, op === "<");
  if (op === ">" || op === ">=") return interval(end, PLUS, op === ">", true);
  if (op === "!=") return complement(point(end));
  return op === "=" ? point(end) : undefined;
}

/** { x : |x| in set }. */
export function absolute(set: RealSet): RealSet {
  const positive = intersect(set, interval({ value: 0, e: num(0) }, PLUS, false, true));
  const flip = (end: End): End => ({ value: -end.value, e: { k: "mul", args: [num(-1), end.e] } });
  const mirrored = positive.map(({ lo, hi, loOpen, hiOpen }) => ({
    lo: flip(hi),
    hi: flip(lo),
    loOpen: hiOpen,
    hiOpen: loOpen,
  }));
  return union(positive, normalize(mirrored));
}

/** The set that an expression names: intervals, finite sets, their unions, intersections and differences. */
export function setOf(e: Expr): RealSet | undefined {
  if (e.k === "tuple") {
    const [lo, hi] = [e.items[0] && endOf(e.items[0]), e.items[1] && endOf(e.items[1])];
    if (e.items.length !== 2 || lo === undefined || hi === undefined || lo.value > hi.value) return undefined;
    return interval(lo, hi, e.open === "(", e.close === ")");
  }
  if (e.k === "set") {
    const ends = e.items.map(endOf);
    return ends.every((end) => end !== undefined) ? ends.map(point).reduce(union, []) : undefined;
  }
  if (e.k === "setop") {
    const [a, b] = [setOf(e.a), setOf(e.b)];
    if (a === undefined || b === undefined) return undefined;
    return e.op === "union" ? union(a, b) : intersect(a, e.op === "minus" ? complement(b) : b);
  }
  const end = endOf(e);
  return end === undefined || !Number.isFinite(end.value) ? undefined : point(end);
}
