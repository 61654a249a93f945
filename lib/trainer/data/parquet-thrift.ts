/** Structures inside each other: Parquet's own have 7. */
const DEEPEST = 32;

/** Bytes of a varint of 32 bits, and of 64. */
const [SHORT, LONG] = [5, 10];

/**
 * Goes through a structure of Thrift's compact protocol. The library that reads it takes on trust that its numbers end, that
 * what has a length is there, and that lengths are none below 0.
 */
class Walk {
  structures = 0;

  constructor(
    private readonly view: DataView,
    public at: number,
  ) {}

  #skip(count: number): void {
    this.at += count;
    if (this.at > this.view.byteLength) throw new Error("a structure in it goes beyond its end: damaged");
  }

  #byte(): number {
    this.#skip(1);
    return this.view.getUint8(this.at - 1);
  }

  /** Exact below 2^31 where it may have five bytes. */
  #varint(most: number): number {
    let value = 0;
    for (let i = 0; i < most; i++) {
      const byte = this.#byte();
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return value;
    }
    throw new Error(`a number in it has more than ${most} bytes: damaged`);
  }

  /** Of bytes, or of elements that take at least one each. */
  #length(): number {
    const length = this.#varint(SHORT);
    if (length > this.view.byteLength - this.at)
      throw new Error(`a list of ${length} is longer than the file: damaged`);
    return length;
  }

  #list(depth: number): void {
    const kind = this.#byte();
    const count = kind >> 4 === 15 ? this.#length() : kind >> 4;
    for (let i = 0; i < count; i++) this.#element(kind & 15, depth, 1);
  }

  /** Truth takes no byte where a field's type says it, and one in a list. */
  #element(type: number, depth: number, truth: number): void {
    if (type === 1 || type === 2) this.#skip(truth);
    else if (type === 3) this.#skip(1);
    else if (type === 4 || type === 5) this.#varint(LONG);
    else if (type === 6) this.#varint(LONG);
    else if (type === 7) this.#skip(8);
    else if (type === 8) this.#skip(this.#length());
    else if (type === 9) this.#list(depth + 1);
    else if (type === 12) this.structure(depth + 1);
    else throw new Error(`a structure in it has a field of type ${type}: damaged`);
  }

  structure(depth = 0): void {
    if (depth > DEEPEST) throw new Error(`its structures are more than ${DEEPEST} deep: damaged`);
    this.structures++;
    for (;;) {
      const byte = this.#byte();
      if ((byte & 15) === 0) return;
      if (byte >> 4 === 0) this.#varint(SHORT);
      this.#element(byte & 15, depth, 0);
    }
  }
}

/** Checks the structure at a place; gives how many are in it, with itself. */
export function checkThrift(view: DataView, at: number): number {
  const walk = new Walk(view, at);
  walk.structure();
  return walk.structures;
}
