import { realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isModel } from "./model-folder.js";

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

const isLast = (place: Place): boolean => last.get(place.folder) === place;

/** Where the weights of a policy lie as files; one object for all policies that read the same weights. */
export class Home {
  /** The newest first. */
  #places: readonly Place[];

  constructor(places: readonly Place[] = []) {
    this.#places = places;
  }

  /** undefined: no folder has the weights as they are. */
  async folder(): Promise<string | undefined> {
    for (const { folder } of this.#places.filter(isLast)) {
      if (await isModel(folder)) return folder;
    }
    return undefined;
  }

  /** The weights were saved, to the bit. */
  add(place: Place): void {
    this.#places = [place, ...this.#places.filter(isLast)];
  }

  /** The weights are others now. */
  leave(): void {
    this.#places = [];
  }

  /** For a copy of the weights. */
  copy(): Home {
    return new Home(this.#places);
  }

  /** Whether the weights are those of `other`, in memory or by a folder. */
  isOf(other: Home): boolean {
    return this === other || this.#places.some((place) => isLast(place) && other.#places.includes(place));
  }
}
