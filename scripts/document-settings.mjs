// Writes what the table of settings says of each one above its type in dist/trainer/settings.d.ts: editors show it where a
// TrainConfig is written. The table alone is imported, which needs no native build.
import { readFileSync, writeFileSync } from "node:fs";

const dist = new URL("../dist/trainer/", import.meta.url);
const { describeSettings } = await import(new URL("schema.js", dist));
const { trainSchema } = await import(new URL("settings.js", dist));

const said = new Map(describeSettings(trainSchema).map((setting) => [setting.name, setting]));
const file = new URL("settings.d.ts", dist);
const path = [];
let inside = false;
const lines = readFileSync(file, "utf8")
  .split("\n")
  .flatMap((line) => {
    if (line.startsWith("export declare const trainSchema")) inside = true;
    const [, indent, name, type] = /^( +)(\w+): (.*)$/.exec(line) ?? [];
    if (!inside || (name === undefined && !/^ *};$/.test(line))) return [line];
    if (name === undefined) inside = path.pop() !== undefined;
    else if (type === "{") path.push(name);
    const setting = said.get([...path, name].join("."));
    if (setting === undefined || type === "{") return [line];
    said.delete(setting.name);
    const text = `${setting.doc}. Default: ${setting.default}`.replaceAll("*/", "*\\/");
    return [`${indent}/** ${text} */`, line];
  });
if (said.size > 0) throw new Error(`dist/trainer/settings.d.ts has no place for: ${[...said.keys()].join(", ")}`);
writeFileSync(file, lines.join("\n"));
