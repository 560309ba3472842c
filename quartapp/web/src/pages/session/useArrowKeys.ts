import { type KeyboardEvent, type RefObject, useCallback } from "react";

const STEPS: Readonly<Record<string, (index: number, last: number) => number>> = {
  ArrowDown: (index, last) => Math.min(last, index + 1),
  ArrowUp: (index) => Math.max(0, index - 1),
  Home: () => 0,
  End: (_, last) => last,
};

/** Arrow keys move between the times of a transcript, of which Tab reaches one. */
export function useArrowKeys(frame: RefObject<HTMLElement | null>) {
  return useCallback(
    (event: KeyboardEvent) => {
      const step = STEPS[event.key];
      if (!step || !(event.target instanceof HTMLButtonElement) || !frame.current) return;
      const times = [...frame.current.querySelectorAll<HTMLButtonElement>("button.time")];
      const next = times[step(times.indexOf(event.target), times.length - 1)];
      if (!next) return;
      event.preventDefault();
      next.focus();
    },
    [frame],
  );
}
