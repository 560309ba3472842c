import { type RefObject, useEffect, useRef } from "react";

const LEFT_ALONE_MS = 4000; // after the reader has scrolled

/** Keeps the segment that is heard in sight, unless the reader is looking elsewhere. */
export function useFollowSound(
  frame: RefObject<HTMLElement | null>,
  segment: number,
  isPlaying: boolean,
): void {
  const scrolledAtMs = useRef(Number.NEGATIVE_INFINITY);

  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const listening = new AbortController();
    const note = () => {
      scrolledAtMs.current = performance.now();
    };
    // Not `scroll`, which our own moving raises too.
    for (const name of ["wheel", "touchmove", "keydown"]) {
      element.addEventListener(name, note, { passive: true, signal: listening.signal });
    }
    return () => listening.abort();
  }, [frame]);

  useEffect(() => {
    const element = frame.current;
    if (!element || !isPlaying || segment < 0) return;
    if (performance.now() - scrolledAtMs.current < LEFT_ALONE_MS) return;
    const line = element.querySelector<HTMLElement>("[data-current]");
    if (line) bringIntoSight(element, line);
  }, [frame, segment, isPlaying]);
}

/** Scrolls the frame alone; `scrollIntoView` would move the page too. */
function bringIntoSight(frame: HTMLElement, line: HTMLElement): void {
  const seen = frame.getBoundingClientRect();
  const { top, bottom, height } = line.getBoundingClientRect();
  if (top >= seen.top && bottom <= seen.bottom) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  frame.scrollBy({
    top: top - seen.top - (seen.height - height) / 3,
    behavior: isCalm ? "instant" : "smooth",
  });
}
