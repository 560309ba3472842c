import { type ComponentType, lazy } from "react";

const AGAIN_MS = 2000;
const RELOADED_AT = "quartapp.reloaded-at";

/**
 * A part of the pages, fetched when it is first shown. Without a network it is waited for. Where
 * the server has another build by now, and this part no more, the page is loaded anew.
 */
export function part<Props extends object>(load: () => Promise<{ default: ComponentType<Props> }>) {
  return lazy(async () => {
    for (;;) {
      try {
        return await load();
      } catch (error) {
        if (await isAnswering()) return load().catch(() => reload(error));
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  });
}

async function isAnswering(): Promise<boolean> {
  try {
    return (await fetch("/", { method: "HEAD", cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** Once: what is missing then is missing for another reason. */
function reload(error: unknown): Promise<never> {
  if (Date.now() - Number(sessionStorage.getItem(RELOADED_AT)) < 60_000) throw error;
  sessionStorage.setItem(RELOADED_AT, String(Date.now()));
  window.location.reload();
  return new Promise(() => {}); // nothing is shown until it has
}
