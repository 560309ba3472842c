import type { Segment } from "../../api/sessions";

/** Which segment, and which of its words, by index; -1 for none. */
export interface Place {
  readonly segment: number;
  readonly word: number;
}

export const NOWHERE: Place = { segment: -1, word: -1 };

/** What is heard at a time: the latest segment and word that have begun by then. Pure. */
export function placeAt(segments: readonly Segment[], timeS: number): Place {
  const segment = lastBegun(segments, timeS);
  const words = segments[segment]?.words;
  return { segment, word: words ? lastBegun(words, timeS) : -1 };
}

/** The index of the last that begins at or before a time, in rising order; -1 for none. */
function lastBegun(timed: readonly { start_s: number }[], timeS: number): number {
  let low = 0;
  let high = timed.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((timed[middle] as { start_s: number }).start_s <= timeS) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
