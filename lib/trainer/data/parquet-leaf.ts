import type { SchemaTree } from "hyparquet";

/** Measured on Node 20: bytes of a value in the arrays it goes through, of an object beside it, and of a list with one element. */
export const [VALUE, OBJECT, LIST] = [40, 96, 184];

const KINDS_OF_OBJECT: ReadonlySet<unknown> = new Set(["DATE", "TIMESTAMP_MILLIS", "TIMESTAMP_MICROS", "UINT_64"]);

/** What the path of a column in the schema says of its values. */
export class Leaf {
  readonly repetition: number;
  readonly definition: number;
  /** Lists around a value: those that each may have to itself, and those that begin with what is outermost of a row. */
  readonly inner: number;
  readonly outer: number;
  /** Bytes that each value takes, without its text. */
  readonly value: number;
  /** Bytes that text takes for each of its own. JSON's `[]` is 24 of them. */
  readonly text: number;

  constructor(
    readonly element: SchemaTree["element"],
    readonly type: string,
    path: readonly SchemaTree[],
  ) {
    const kinds = path.slice(1).map((one) => one.element.repetition_type);
    // The library counts the root too, here alone.
    this.repetition = path.filter((one) => one.element.repetition_type === "REPEATED").length;
    this.definition = kinds.filter((kind) => kind !== "REQUIRED").length;
    const first = kinds.indexOf("REPEATED") + 1;
    this.outer = kinds.slice(0, first).filter((kind) => kind !== "REQUIRED").length;
    this.inner = kinds.slice(first, -1).filter((kind) => kind !== "REQUIRED").length;
    const { converted_type: converted, logical_type: logical } = element;
    const isObject = KINDS_OF_OBJECT.has(converted) || logical?.type === "TIMESTAMP" || /^INT(64|96)$/.test(type);
    this.value = VALUE + (isObject ? OBJECT : 0) + this.inner * LIST;
    this.text = converted === "JSON" || logical?.type === "GEOMETRY" || logical?.type === "GEOGRAPHY" ? 24 : 2;
  }

  /** Whether each of its values is a decimal of a length of its own. */
  get isDecimal(): boolean {
    return this.element.converted_type === "DECIMAL" && this.type === "BYTE_ARRAY";
  }
}
