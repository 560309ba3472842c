// @vitest-environment node
/// <reference types="node" />
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const web = resolve(import.meta.dirname, "../..");
const MOST_BYTES = 6000;

let home: string;
let unpacked: string;

/** As somebody installs it: alone. */
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "quartapp-status-"));
  const made = execFileSync(process.execPath, [join(web, "package/pack.mjs"), home], {
    encoding: "utf8",
    env: { ...process.env, NODE_ENV: "production" },
  });
  const tarball = made.trim().split("\n").at(-1) ?? "";
  unpacked = join(home, "node_modules/quartapp-status");
  mkdirSync(unpacked, { recursive: true });
  execFileSync("tar", ["xf", tarball, "-C", unpacked, "--strip-components=1"]);
}, 120_000);

afterAll(() => rmSync(home, { recursive: true }));

describe("the npm package", () => {
  it("has a core under 6 kB, and needs nothing else", () => {
    const core = readFileSync(join(unpacked, "dist/index.js"));
    expect(gzipSync(core, { level: 9 }).byteLength).toBeLessThan(MOST_BYTES);
    expect(/\b(?:import|from)\s*["'`(]/.test(core.toString())).toBe(false);
    const manifest = JSON.parse(readFileSync(join(unpacked, "package.json"), "utf8"));
    expect(manifest.dependencies).toBeUndefined();
    expect(manifest.version).toMatch(/^\d+\.\d+\.\d+/);
  });

  it("loads in a runtime that is no browser", async () => {
    const core = await import(/* @vite-ignore */ join(unpacked, "dist/index.js"));
    expect(Object.keys(core)).toEqual(expect.arrayContaining(["watchSession", "watchSessions"]));
  });

  it("AC-2.1.5 brings types that need no file but its own", { timeout: 60_000 }, () => {
    writeFileSync(
      join(home, "use.ts"),
      `import { type SessionState, watchSession } from "quartapp-status";
       import type { useSessions } from "quartapp-status/react";
       export const stop: () => void = watchSession("id", (state: SessionState) => {
         const progress: number | undefined = state.status?.progress;
         // @ts-expect-error: there is no such status, so the types are not any
         const never: boolean = state.status?.status === "finished";
         console.log(progress, never);
       });
       export type Ids = Parameters<ReturnType<typeof useSessions>["statuses"]["get"]>;`,
    );
    const options = {
      strict: true,
      noEmit: true,
      target: "ES2022",
      module: "NodeNext",
      lib: ["ES2023", "DOM"],
      types: [],
    };
    const project = join(home, "tsconfig.json");
    writeFileSync(project, JSON.stringify({ compilerOptions: options, files: ["use.ts"] }));
    const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
    execFileSync(process.execPath, [tsc, "-p", project], { stdio: "pipe" });
  });

  it("names no place of the machine that made it", () => {
    for (const name of readdirSync(unpacked, { recursive: true, encoding: "utf8" })) {
      if (!/\.(?:js|ts|json|md|html)$/.test(name)) continue;
      expect(readFileSync(join(unpacked, name), "utf8")).not.toContain(web);
    }
  });
});
