import type { SchemaTree } from "hyparquet";

/** Bytes on Node 20 of a value in the arrays it goes through, of an object, and of a list with one element. */
export const [VALUE, OBJECT, LIST] = [40, 96, 184];

const BIGINT = 24;

const DATES: ReadonlySet<unknown> = new Set(["DATE", "TIMESTAMP_MILLIS", "TIMESTAMP_MICROS"]);

const isNull = ({ element }: SchemaTree): boolean => element.repetition_type !== "REQUIRED";

/** Whether rows have an object for a part of the schema, for which the library makes lists anew. */
const isObject = (part: SchemaTree, above: SchemaTree): boolean =>
  part.element.converted_type !== "LIST" && !/^(LIST|MAP)$/.test(above.element.converted_type ?? "");

/** Of some parts of a path, how many are lists, and of how many this is the first column of an object. */
function counted(path: readonly SchemaTree[], from: number, to: number): readonly [lists: number, objects: number] {
  let [lists, objects] = [0, 0];
  for (let i = from; i < to; i++) {
    const part = path[i]!;
    if (isNull(part)) lists++;
    if (i + 1 < path.length && part.children[0] === path[i + 1] && isObject(part, path[i - 1]!)) objects++;
  }
  return [lists, objects];
}

/** What the path of a column in the schema says of its values. */
export class Leaf {
  readonly repetition: number;
  readonly definition: number;
  /** Bytes that each value takes, without its text. */
  readonly value: number;
  /** Bytes of the lists that begin with each value which is the first of its row. */
  readonly row: number;
  /** Bytes that text takes for each of its own. JSON's `[]` is 24 of them. */
  readonly text: number;

  /** @param path from the root on */
  constructor(
    readonly element: SchemaTree["element"],
    readonly type: string,
    path: readonly SchemaTree[],
  ) {
    // The library counts the root too, here alone.
    this.repetition = path.filter((one) => one.element.repetition_type === "REPEATED").length;
    this.definition = path.slice(1).filter(isNull).length;
    const first = Math.max(1, path.findIndex((one) => one.element.repetition_type === "REPEATED") + 1);
    const { converted_type: converted, logical_type: logical } = element;
    const isBoxed = DATES.has(converted) || logical?.type === "TIMESTAMP" || /^(INT96|FIXED)/.test(type);
    const box = isBoxed ? OBJECT : type === "INT64" ? BIGINT : 0;
    const [inner, innerObjects] = counted(path, first, path.length - 1);
    const [outer, outerObjects] = counted(path, 1, first);
    // Where there are objects, lists are made once more, each with an object of its own for a while.
    const again = LIST + OBJECT;
    this.value = VALUE + box + inner * LIST + innerObjects * (OBJECT + inner * again);
    this.row = outer * LIST + outerObjects * OBJECT + (innerObjects + outerObjects) * outer * again;
    this.text = converted === "JSON" || logical?.type === "GEOMETRY" || logical?.type === "GEOGRAPHY" ? 24 : 2;
  }

  /** Whether each of its values is a decimal of a length of its own. */
  get isDecimal(): boolean {
    return this.element.converted_type === "DECIMAL" && this.type === "BYTE_ARRAY";
  }
}
