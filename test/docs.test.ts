import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import * as rlsd from "../lib/index.js";
import { describeSettings } from "../lib/trainer/schema.js";
import { trainSchema } from "../lib/trainer/settings.js";

const root = resolve(__dirname, "..");
const read = (file: string): string => readFileSync(join(root, file), "utf8");

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith(".ts") ? [path] : [];
  });
}

/** Names of what a module exports, types too. */
function exportsOf(file: string): string[] {
  const text = read(file);
  const listed = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list]) => list!.split(","));
  const declared = [...text.matchAll(/^export (?:async )?(?:function|const|interface|class|type) (\w+)/gm)];
  return [...listed.map((name) => name.trim().replace(/^type /, "")), ...declared.map(([, name]) => name!)].filter(
    Boolean,
  );
}

const pages = [
  "README.md",
  "CHANGELOG.md",
  ...readdirSync(join(root, "docs")).map((file) => join("docs", file)),
].filter((file) => file.endsWith(".md"));

describe("the documentation", () => {
  test("docs/api.md names every export, types included", () => {
    const text = read("docs/api.md");
    const names = [...exportsOf("lib/index.ts"), ...exportsOf("lib/interop.ts")];
    expect(names).toEqual(expect.arrayContaining(Object.keys(rlsd)));
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });

  test("docs/api.md names every error code", () => {
    const codes = new Set(sources("lib").flatMap((file) => read(file).match(/ERR_RLSD_[A-Z_]*[A-Z]/g) ?? []));
    const text = read("docs/api.md");
    expect([...codes].filter((code) => !text.includes(`\`${code}\``))).toEqual([]);
    expect(codes.size).toBeGreaterThan(10);
  });

  test("docs/maths.md names functions that exist", () => {
    const code = [...sources("lib"), ...readdirSync(join(root, "csrc/core")).map((file) => join("csrc/core", file))]
      .concat(readdirSync(join(root, "csrc/cpu")).map((file) => join("csrc/cpu", file)))
      .filter((file) => /\.(ts|h|cc)$/.test(file))
      .map(read)
      .join("\n");
    const named = read("docs/maths.md").match(/`([a-z]+(?:_[a-z]+)+|[a-z]+[A-Za-z]*Reference|creditMixAt)`/g) ?? [];
    const options = new Set(["dr_grpo", "geo_mean"]); // the names of other code's losses
    const missing = named.map((name) => name.slice(1, -1)).filter((name) => !options.has(name) && !code.includes(name));
    expect(missing).toEqual([]);
    expect(named.length).toBeGreaterThan(10);
  });

  test.each(pages)("%s links to files that exist", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map((match) => match[1] ?? "");
    const local = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(local.filter((link) => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  test("the declarations that are published say what every setting means", () => {
    const shown = read("dist/trainer/settings.d.ts").replaceAll("*\\/", "*/");
    const settings = describeSettings(trainSchema);
    expect(settings.filter(({ doc }) => !shown.includes(`/** ${doc}. Default: `))).toEqual([]);
    expect(shown.match(/: Field</g)).toHaveLength(settings.length);
  });

  test("every TypeScript example compiles as printed, under the strictest options", () => {
    const parent = join(root, "build-test");
    mkdirSync(parent, { recursive: true });
    const folder = mkdtempSync(join(parent, "docs-"));
    try {
      const blocks = pages.flatMap((page) =>
        [...read(page).matchAll(/^```ts\n(.*?)^```/gms)].map((match, i) => ({ page, i, code: match[1]! })),
      );
      for (const { page, i, code } of blocks) {
        writeFileSync(join(folder, `${page.replaceAll(/\W/g, "-")}-${i}.ts`), `${code}export {};\n`);
      }
      const compilerOptions = { rootDir: "../..", noEmit: true, paths: { rlsd: ["../../lib/index.ts"] } };
      const files = ["*.ts", "../../test/types/docs-globals.d.ts"];
      const settings = { extends: "../../tsconfig.json", compilerOptions, include: files };
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(settings));
      const tsc = join(root, "node_modules/typescript/bin/tsc");
      const { stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" });
      expect(stdout).toBe("");
      expect(blocks.length).toBeGreaterThanOrEqual(6);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 120_000);
});
