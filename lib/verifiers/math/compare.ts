/** Whether an answer says what the right answer says. The order matters: the right answer decides what is asked for. */
import { canonical, type Expr, num, some, symbols } from "./ast.js";
import { matrixOf } from "./matrix.js";
import { type Read, readValue } from "./normal.js";
import { asSet, assignment, FLIPPED, membership, type Relation, shortened, sided } from "./relations.js";
import { type Decision, proportion, scalarsEqual, type Tolerance } from "./scalar.js";
import { endOf, type RealSet } from "./sets.js";
import { unitOf } from "./units.js";

export interface CompareOptions extends Tolerance {
  /** Accept an inequality where the right answer is a set. Off: an inequality is often a line of the question, repeated. */
  readonly inequalityForSet: boolean;
}

const MAX_ITEMS = 64;

/** All must hold: one false is false, else one undecided is undecided. */
async function every(decisions: readonly (() => Promise<Decision>)[]): Promise<Decision> {
  let undecided = false;
  for (const decide of decisions) {
    const decision = await decide();
    if (decision === false) return false;
    undecided ||= decision === null;
  }
  return undecided ? null : true;
}

const isCollection = (e: Expr): e is Expr & { k: "set" } => e.k === "set";

export class Comparer {
  readonly #options: CompareOptions;
  /** How the last decision on scalars was made, for the log. */
  by = "form";

  constructor(options: CompareOptions) {
    this.#options = options;
  }

  async equal(gold: Expr, given: Expr): Promise<Decision> {
    const [g, p] = [readValue(gold), readValue(given)];
    const [gu, pu] = [
      g.unit === undefined ? undefined : unitOf(g.unit),
      p.unit === undefined ? undefined : unitOf(p.unit),
    ];
    if (gu !== undefined && pu !== undefined && (gu.dimension !== pu.dimension || gu.factor !== pu.factor)) {
      if (gu.dimension !== pu.dimension) return false;
      const factor: Expr = { k: "div", a: decimal(pu.factor), b: decimal(gu.factor) };
      return await this.#bare(g.e, { k: "mul", args: [factor, p.e] });
    }
    const direct = await this.#bare(g.e, p.e);
    if (direct !== false || g.percent === p.percent) return direct;
    const hundredth = (one: Read): Expr => (one.percent ? { k: "percent", a: one.e } : one.e);
    return await this.#bare(hundredth(g), hundredth(p));
  }

  async #scalars(a: Expr, b: Expr): Promise<Decision> {
    if (infinite(a) || infinite(b)) {
      const [x, y] = [endOf(a), endOf(b)];
      return x === undefined || y === undefined ? null : x.value === y.value;
    }
    const { equal, by } = await scalarsEqual(a, b, this.#options);
    this.by = by;
    return equal;
  }

  async #bare(g: Expr, p: Expr): Promise<Decision> {
    if (canonical(g) === canonical(p)) {
      this.by = "form";
      return true;
    }
    const [ga, pa] = [assignment(g), assignment(p)];
    if (ga !== undefined && pa !== undefined) return await this.#assignments(ga, pa, g as Relation, p as Relation);
    if (ga !== undefined && p.k !== "rel") return await this.equal(ga.value, p);
    if (pa !== undefined && g.k !== "rel") return await this.equal(g, pa.value);
    if (g.k === "rel" && p.k === "rel" && membership(g) === undefined && membership(p) === undefined) {
      return await this.#relations(g, p);
    }
    if (g.k === "matrix" || p.k === "matrix" || some(g, isMatrix) || some(p, isMatrix))
      return await this.#matrices(g, p);
    if (g.k === "text" || p.k === "text" || some(g, isText) || some(p, isText)) return false;
    return await this.#collections(g, p);
  }

  async #collections(g: Expr, p: Expr): Promise<Decision> {
    if (isCollection(g) && isCollection(p)) return await this.#unordered(g.items, p.items);
    if (g.k === "tuple" && p.k === "tuple") return await this.#tuples(g, p);
    if (g.k === "tuple" && isCollection(p) && g.open === "(" && g.close === ")")
      return await this.#ordered(g.items, p.items);
    if (p.k === "tuple" && isCollection(g) && p.open === "(" && p.close === ")" && !g.braces) {
      return await this.#ordered(g.items, p.items);
    }
    const sets = await this.#sets(g, p);
    if (sets !== undefined) return sets;
    if (isCollection(g)) return g.items.length === 1 ? await this.equal(g.items[0]!, p) : false;
    if (isCollection(p)) return p.items.length === 1 ? await this.equal(g, p.items[0]!) : false;
    if (g.k === "ratio" && p.k === "ratio") return await this.#ratios(g.items, p.items);
    if (g.k === "setop" && p.k === "setop") return await this.#setOperations(g, p);
    const structured = (e: Expr) =>
      e.k === "tuple" || e.k === "setop" || e.k === "rel" || e.k === "where" || some(e, (part) => part.k === "tuple");
    if (structured(g) || structured(p)) return structured(g) && structured(p) ? null : false;
    return await this.#scalars(g, p);
  }

  /** x = 3 and y = 3 answer one question; y = x/2 and x = 2y are one equation. */
  async #assignments(
    g: { name: Expr; value: Expr },
    p: { name: Expr; value: Expr },
    whole: Relation,
    given: Relation,
  ): Promise<Decision> {
    const values = await this.equal(g.value, p.value);
    if (values === true || canonical(g.name) === canonical(p.name)) return values;
    return this.#sameEquation(whole, given);
  }

  #sameEquation(g: Relation, p: Relation): Decision {
    const ratio = proportion(sided(g), sided(p));
    return ratio === null ? null : ratio !== 0;
  }

  async #relations(g: Relation, p: Relation): Promise<Decision> {
    const [gs, ps] = [asSet(g, true), asSet(p, true)];
    const order = g.ops[0] !== "=" && p.ops[0] !== "=";
    if (order && gs !== undefined && ps !== undefined && sameUnknown(g, p)) return await this.#sameSet(gs, ps);
    if (g.terms.length !== p.terms.length) return false;
    if (g.terms.length > 2) {
      const back: Relation = {
        ...p,
        terms: p.terms.toReversed(),
        ops: p.ops.toReversed().map((op) => FLIPPED[op] ?? op),
      };
      return (await this.#chain(g, p)) || (await this.#chain(g, back));
    }
    const [a, b] = [g.ops[0]!, p.ops[0]!];
    if (a === "=" && b === "=") return this.#sameEquation(g, p);
    const ratio = proportion(sided(g), sided(p));
    if (ratio === null) return null;
    return ratio !== 0 && (ratio > 0 ? b : (FLIPPED[b] ?? b)) === a;
  }

  async #chain(g: Relation, p: Relation): Promise<Decision> {
    if (g.ops.some((op, i) => op !== p.ops[i])) return false;
    return await every(g.terms.map((term, i) => () => this.equal(term, p.terms[i]!)));
  }

  async #matrices(g: Expr, p: Expr): Promise<Decision> {
    const [a, b] = [matrixOf(g), matrixOf(p)];
    if (a === undefined || b === undefined) return a === undefined && b === undefined ? null : false;
    if (a.rows.length !== b.rows.length || a.rows[0]!.length !== b.rows[0]!.length) return false;
    return await this.#ordered(a.rows.flat(), b.rows.flat());
  }

  async #ordered(g: readonly Expr[], p: readonly Expr[]): Promise<Decision> {
    if (g.length !== p.length || g.length > MAX_ITEMS) return false;
    return await every(g.map((item, i) => () => this.equal(item, p[i]!)));
  }

  async #tuples(g: Expr & { k: "tuple" }, p: Expr & { k: "tuple" }): Promise<Decision> {
    if (g.items.length === 2 && (g.open !== p.open || g.close !== p.close)) return false;
    return await this.#ordered(g.items, p.items);
  }

  /** Each right item is matched by one given item and none is left over. */
  async #unordered(gold: readonly Expr[], given: readonly Expr[]): Promise<Decision> {
    const distinct = (items: readonly Expr[]) => [
      ...new Map(items.map((item) => [canonical(shortened(item)), item])).values(),
    ];
    const [g, p] = [distinct(gold), distinct(given)];
    if (g.length !== p.length || g.length > MAX_ITEMS) return false;
    const named =
      new Set(g.map((item) => assignment(shortened(item))?.name).map((name) => name && canonical(name))).size > 1;
    const left = [...p];
    let undecided = false;
    for (const item of g) {
      let [at, doubtful] = [-1, false];
      for (const [i, candidate] of left.entries()) {
        const same = named && !compatibleNames(item, candidate) ? false : await this.equal(item, candidate);
        if (same) at = i;
        doubtful ||= same === null;
        if (at >= 0) break;
      }
      if (at >= 0) left.splice(at, 1);
      else if (doubtful) undecided = true;
      else return false;
    }
    return undecided ? null : true;
  }

  async #sets(g: Expr, p: Expr): Promise<Decision | undefined> {
    const setLike = (e: Expr) =>
      e.k === "tuple" || e.k === "setop" || e.k === "set" || e.k === "rel" || e.k === "where";
    if (!setLike(g) || !setLike(p)) return undefined;
    const [a, b] = [asSet(g, true), asSet(p, this.#options.inequalityForSet || g.k === "rel")];
    const inequality = p.k === "rel" && membership(p) === undefined && b === undefined;
    if (a !== undefined && inequality) return false;
    return a === undefined || b === undefined ? undefined : await this.#sameSet(a, b);
  }

  async #sameSet(a: RealSet, b: RealSet): Promise<Decision> {
    if (a.length !== b.length) return false;
    const ends = (x: Expr, y: Expr) => () =>
      infinite(x) || infinite(y) ? Promise.resolve(canonical(x) === canonical(y)) : this.equal(x, y);
    return await every(
      a.flatMap((piece, i) => {
        const other = b[i]!;
        const shape = piece.loOpen === other.loOpen && piece.hiOpen === other.hiOpen;
        return [() => Promise.resolve(shape), ends(piece.lo.e, other.lo.e), ends(piece.hi.e, other.hi.e)];
      }),
    );
  }

  async #setOperations(g: Expr & { k: "setop" }, p: Expr & { k: "setop" }): Promise<Decision> {
    if (g.op !== p.op) return null;
    return (
      (await this.#ordered([g.a, g.b], [p.a, p.b])) ||
      (g.op !== "minus" && (await this.#ordered([g.a, g.b], [p.b, p.a])))
    );
  }

  /** a : b = c : d when a d = b c; with a zero, as a time of day has, part by part. */
  async #ratios(g: readonly Expr[], p: readonly Expr[]): Promise<Decision> {
    if (g.length !== p.length) return false;
    const same = await this.#ordered(g, p);
    const zero = (e: Expr) => canonical(e) === "0";
    if (same !== false || [...g, ...p].some(zero)) return same;
    const cross = (i: number) => () =>
      this.#scalars({ k: "mul", args: [g[0]!, p[i]!] }, { k: "mul", args: [g[i]!, p[0]!] });
    return await every(g.slice(1).map((_, i) => cross(i + 1)));
  }
}

const isMatrix = (e: Expr) => e.k === "matrix";
const isText = (e: Expr) => e.k === "text";
const infinite = (e: Expr) => some(e, (part) => part.k === "const" && part.name === "inf");
const decimal = (x: number): Expr => num(BigInt(Math.round(x * 1e12)), 10n ** 12n);

function compatibleNames(a: Expr, b: Expr): boolean {
  const [x, y] = [assignment(shortened(a))?.name, assignment(shortened(b))?.name];
  return x === undefined || y === undefined || canonical(x) === canonical(y);
}

/** Inequalities in one unknown each: x < 1 and y < 1 are not the same statement. */
function sameUnknown(g: Relation, p: Relation): boolean {
  const [a, b] = [symbols(g), symbols(p)];
  return a.size === b.size && [...a].every((name) => b.has(name));
}
