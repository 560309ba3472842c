import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

// A packet's worth: what is smaller gains nothing.
const MIN_BYTES = 1024;
const TEXT = /\.(?:js|css|svg|json|map)$/;

/** Puts each text asset beside itself as `.br` and `.gz`, for the server to choose from. */
export function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        for (const [fileName, output] of Object.entries(bundle)) {
          if (!fileName.startsWith("assets/") || !TEXT.test(fileName)) continue;
          const source = Buffer.from(output.type === "chunk" ? output.code : output.source);
          if (source.byteLength < MIN_BYTES) continue;
          this.emitFile({ type: "asset", fileName: `${fileName}.br`, source: brotli(source) });
          this.emitFile({ type: "asset", fileName: `${fileName}.gz`, source: gzip(source) });
        }
      },
    },
  };
}

const gzip = (source: Buffer) => gzipSync(source, { level: constants.Z_BEST_COMPRESSION });

const brotli = (source: Buffer) =>
  brotliCompressSync(source, {
    params: {
      [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_SIZE_HINT]: source.byteLength,
    },
  });
