import { useEffect } from "react";

const SITE = "quartapp";

/** The title of window and history entry. */
export function usePageTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · ${SITE}` : SITE;
  }, [title]);
}
