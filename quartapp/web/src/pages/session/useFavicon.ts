import { useEffect } from "react";
import type { Status } from "../../words/status";
import { drawFavicon } from "./favicon";

/** The tab's picture shows how far it is, and the end; the product's mark again afterwards. */
export function useFavicon(status: Status, progress: number): void {
  useEffect(() => {
    const link = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
    const drawn = drawFavicon(status, progress);
    if (!link || !drawn) return;
    const usual = link.href;
    link.href = drawn;
    return () => {
      link.href = usual;
    };
  }, [status, progress]);
}
