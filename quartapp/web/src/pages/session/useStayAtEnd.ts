import { type RefObject, useEffect, useLayoutEffect, useRef, useState } from "react";

const NEAR_PX = 48;

/**
 * Keeps the newest text in sight while the reader is at the end of it; a reader who has gone back
 * is left alone.
 */
export function useStayAtEnd(
  frame: RefObject<HTMLElement | null>,
  length: number,
  isFollowing: boolean,
) {
  const [isAtEnd, setAtEnd] = useState(true);
  const wasAtEnd = useRef(true);

  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const look = () => {
      const leftPx = element.scrollHeight - element.scrollTop - element.clientHeight;
      wasAtEnd.current = leftPx < NEAR_PX;
      setAtEnd(wasAtEnd.current);
    };
    element.addEventListener("scroll", look, { passive: true });
    return () => element.removeEventListener("scroll", look);
  }, [frame]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: new text is the reason
  useLayoutEffect(() => {
    if (isFollowing && wasAtEnd.current) toEnd();
  }, [length, isFollowing]);

  function toEnd() {
    const element = frame.current;
    if (element) element.scrollTop = element.scrollHeight;
  }
  return { isAtEnd, toEnd };
}
