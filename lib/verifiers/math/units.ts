/** Units as [dimension, factor to its base unit]. Two known units must agree; an unknown one is taken as a word and ignored. */
const TABLE: readonly (readonly [names: string, dimension: string, factor: number])[] = [
  ["m meter meters metre metres", "length", 1],
  ["cm centimeter centimeters centimetre centimetres", "length", 0.01],
  ["mm millimeter millimeters millimetre millimetres", "length", 0.001],
  ["km kilometer kilometers kilometre kilometres", "length", 1000],
  ["in inch inches", "length", 0.0254],
  ["ft foot feet", "length", 0.3048],
  ["yd yard yards", "length", 0.9144],
  ["mi mile miles", "length", 1609.344],
  ["s sec second seconds", "time", 1],
  ["min minute minutes", "time", 60],
  ["h hr hrs hour hours", "time", 3600],
  ["day days", "time", 86400],
  ["week weeks", "time", 604800],
  ["g gram grams", "mass", 0.001],
  ["kg kilogram kilograms", "mass", 1],
  ["mg milligram milligrams", "mass", 1e-6],
  ["lb lbs pound pounds", "mass", 0.45359237],
  ["oz ounce ounces", "mass", 0.028349523125],
  ["l liter liters litre litres", "volume", 1],
  ["ml milliliter milliliters", "volume", 0.001],
  ["dollar dollars usd", "dollar", 1],
  ["cent cents", "dollar", 0.01],
  ["euro euros eur", "euro", 1],
  ["degree degrees circ", "degree", 1],
  ["radian radians rad", "radian", 1],
];

interface Unit {
  readonly dimension: string;
  readonly factor: number;
}

const UNITS: ReadonlyMap<string, Unit> = new Map(
  TABLE.flatMap(([names, dimension, factor]) => names.split(" ").map((name) => [name, { dimension, factor }] as const)),
);

/** "square cm", "cm^2", "cm", "km/h": the known unit that a text names; undefined when there is none. */
export function unitOf(text: string): Unit | undefined {
  const match = /^(square|sq|cubic|cu)?\.?\s*([a-z]+)\.?\s*(?:\^?\{?([23])\}?)?$/i.exec(text.trim());
  const base = match === null ? undefined : UNITS.get(match[2]!.toLowerCase());
  if (match === null || base === undefined) return undefined;
  const power = match[3] !== undefined ? Number(match[3]) : /^sq/i.test(match[1] ?? "") ? 2 : match[1] ? 3 : 1;
  return power === 1 ? base : { dimension: `${base.dimension}^${power}`, factor: base.factor ** power };
}

/** Whether a bare word after a number reads as a unit. Single letters are variables there. */
export const isUnitWord = (word: string): boolean => word.length > 1 && UNITS.has(word.toLowerCase());
