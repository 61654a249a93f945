import { realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

/** A folder as it was when weights were read from it, or written to it. */
export interface Place {
  readonly folder: string;
}

/** The last place in each folder: a model that this process saves there ends those before it. */
const last = new Map<string, Place>();

/** Without links, which may point elsewhere by the time that the path is read. */
async function realFolder(directory: string): Promise<string> {
  const path = resolve(directory);
  const real = (p: string) => realpath(p).catch(() => undefined);
  return (await real(path)) ?? join((await real(dirname(path))) ?? dirname(path), basename(path));
}

/** To be called before the weights are read. */
export async function placeOf(directory: string): Promise<Place> {
  const folder = await realFolder(directory);
  const place = last.get(folder) ?? { folder };
  last.set(folder, place);
  return place;
}

/** To be called before the first file is overwritten. */
export async function newPlace(directory: string): Promise<Place> {
  const place = { folder: await realFolder(directory) };
  last.set(place.folder, place);
  return place;
}

/** Where the weights of a policy lie as files; one object for all policies that read the same weights. */
export class Home {
  #place: Place | undefined;

  constructor(place?: Place) {
    this.#place = place;
  }

  /** undefined: no folder has the weights as they are. */
  get folder(): string | undefined {
    return this.#place !== undefined && last.get(this.#place.folder) === this.#place ? this.#place.folder : undefined;
  }

  /** The weights were saved, to the bit; or, without a place, they are others now. */
  move(place?: Place): void {
    this.#place = place;
  }

  /** For a copy of the weights. */
  copy(): Home {
    return new Home(this.#place);
  }
}
