import { type ReactNode, useEffect, useRef } from "react";
import { useLocation, useNavigationType } from "react-router";
import { usePageTitle } from "./usePageTitle";

/**
 * The first heading of a page. After moving here from another page it takes the focus, so that
 * the keyboard and those who listen begin at the top; the page's title is its text.
 */
export function PageHeading({ children, title }: { children: ReactNode; title?: string }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const hasMoved = useLocation().key !== "default";
  const wayHere = useNavigationType();
  usePageTitle(title ?? (typeof children === "string" ? children : ""));
  // Once: later renders are not a move.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above
  useEffect(() => {
    if (!hasMoved) return;
    if (wayHere !== "POP") window.scrollTo(0, 0);
    if (!isFocusWithinMain()) heading.current?.focus({ preventScroll: true });
  }, []);
  return (
    <h1 ref={heading} tabIndex={-1} dir="auto">
      {children}
    </h1>
  );
}

/** Such as a field that took the focus itself. */
function isFocusWithinMain(): boolean {
  const main = document.getElementById("main");
  const focused = document.activeElement;
  return main !== null && focused !== null && focused !== main && main.contains(focused);
}
