// Makes the npm package of the status core and the hook: quartapp-status-VERSION.tgz.
//
//   node package/pack.mjs [DIRECTORY]     by default dist/ of the repository

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { build } from "vite";

const web = resolve(import.meta.dirname, "..");
const target = resolve(process.argv[2] ?? join(web, "../../dist"));
const staged = join(target, "quartapp-status");

/** The core is one file, which the hook imports. */
async function bundle() {
  await build({
    root: web,
    configFile: false,
    logLevel: "warn",
    publicDir: false,
    build: {
      outDir: join(staged, "dist"),
      emptyOutDir: false,
      target: "es2022",
      lib: {
        entry: {
          index: join(web, "src/status/index.ts"),
          react: join(web, "src/status/react.ts"),
        },
        formats: ["es"],
      },
      rolldownOptions: {
        external: ["react", /\/index$/],
        output: { minify: true, paths: (id) => (id.endsWith("/index") ? "./index.js" : id) },
      },
    },
  });
}

/** Types as Node resolves them: with the names of files. */
function declare() {
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const types = join(staged, "dist");
  const project = join(import.meta.dirname, "tsconfig.json");
  execFileSync(process.execPath, [tsc, "-p", project, "--outDir", types], { stdio: "inherit" });
  for (const name of readdirSync(types, { recursive: true })) {
    if (!name.endsWith(".d.ts")) continue;
    const path = join(types, name);
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.replaceAll(/(from "\.{1,2}\/[^"]+)"/g, '$1.js"'));
  }
}

function describe() {
  const project = readFileSync(join(web, "../../pyproject.toml"), "utf8");
  const version = /^version = "(.+)"$/m.exec(project)?.[1];
  if (!version) throw new Error("pyproject.toml names no version");
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname, "package.json"), "utf8"));
  const text = JSON.stringify({ ...manifest, version }, null, 2);
  writeFileSync(join(staged, "package.json"), `${text}\n`);
  for (const name of ["README.md", "example"]) {
    cpSync(join(import.meta.dirname, name), join(staged, name), { recursive: true });
  }
}

rmSync(staged, { recursive: true, force: true });
mkdirSync(staged, { recursive: true });
await bundle();
declare();
describe();
const output = execFileSync("npm", ["pack", "--silent", "--pack-destination", target], {
  cwd: staged,
  encoding: "utf8",
});
rmSync(staged, { recursive: true });
console.log(join(target, output.trim()));
