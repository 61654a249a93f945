import { OBJECTIVE_NAMES, SETTING_NAMES } from "../other-names.js";
import { closest, fold } from "../suggest.js";

const leafOf = (path: string): string => path.slice(path.lastIndexOf(".") + 1);

/**
 * Paths of the settings that a name most likely meant, the likeliest alone where one is: by what other trainers call it, by
 * its name in another section (`learningRate`, `evalEvery`, `creditMix`), by a name that is near. None: nothing is near.
 *
 * @param path of the name that is none
 * @param paths of all settings, those of `objective` among them
 */
export function settingsMeant(path: string, paths: readonly string[]): readonly string[] {
  const name = leafOf(path);
  const section = path.slice(0, path.length - name.length);
  const there = (one: string | undefined): readonly string[] => (one !== undefined && paths.includes(one) ? [one] : []);
  const beside = paths.filter((one) => one.startsWith(section)).map((one) => one.slice(section.length).split(".")[0]!);
  const alike = (one: string): boolean => fold(one) === fold(name) || fold(leafOf(one)) === fold(name);
  const near = closest(name, beside);
  const ways = [
    there(SETTING_NAMES.get(fold(name))),
    near === undefined ? [] : [`${section}${near}`],
    [...paths.filter(alike), ...there(`objective.${OBJECTIVE_NAMES.get(fold(name))}`)],
    paths.filter((one) => leafOf(one) === closest(name, paths.map(leafOf))),
  ];
  return ways.find((found) => found.length > 0) ?? [];
}
