import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { precompress } from "./precompress";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The pages, as `quartapp serve` serves them: everything under /static/, names by content. */
export default defineConfig({
  base: "/static/",
  plugins: [react(), precompress()],
  resolve: {
    alias: [
      { find: /^quartapp-status$/, replacement: here("./src/status/index.ts") },
      { find: /^quartapp-status\/react$/, replacement: here("./src/status/react.ts") },
    ],
  },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    // A strict content security policy allows no data: URL in a style sheet.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
  test: {
    environment: "jsdom",
    include: ["tests/**/*.test.{ts,tsx}"],
    // On a busy machine loading the modules anew takes long; no test measures time by it.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
