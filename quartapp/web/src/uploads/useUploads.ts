import { useSyncExternalStore } from "react";
import { UploadQueue } from "./queue";
import type { Upload } from "./upload";

/** The one queue of this page load. */
export const uploads = new UploadQueue();

addEventListener("online", () => uploads.resume());
addEventListener("beforeunload", (event) => {
  if (uploads.isUnfinished) event.preventDefault();
});

/** The uploads as they are; renders again as they change. */
export function useUploads(): readonly Upload[] {
  return useSyncExternalStore(uploads.subscribe, uploads.snapshot);
}
