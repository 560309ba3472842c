/** An event so much later than the quickest one was held up on the way. */
const LATE_MS = 10_000;
/** So many of them, and the way holds everything up. */
const MOST_LATE = 2;

/**
 * Whether the events of one stream come when they are sent. A proxy that collects an answer before
 * it passes it on lets them come in lumps. The clocks need not agree: delays are measured against
 * the least. All times in milliseconds; `now` is this machine's, `sentAt` the server's.
 */
export interface Punctuality {
  /** The stream began; false when it took so long that its way is in doubt. */
  hello(sentAt: number, now: number): boolean;
  /** An event came; `true` takes the doubt away, null says nothing. */
  heard(sentAt: number, now: number): boolean | null;
  /** Whether events come in lumps. */
  readonly lumpy: boolean;
}

export function punctuality(openedAt: number): Punctuality {
  let begunAt = Number.POSITIVE_INFINITY; // not yet
  let leastDelay = 0;
  let late = 0;
  return {
    hello(sentAt, now) {
      begunAt = sentAt;
      // It is sent as soon as it is asked for; what else it took is delay.
      leastDelay = openedAt - sentAt;
      late = now - openedAt > LATE_MS ? 1 : 0;
      return late === 0;
    },
    heard(sentAt, now) {
      if (!(sentAt > begunAt)) return null; // of the time before
      const delay = now - sentAt;
      leastDelay = Math.min(leastDelay, delay);
      const isLate = delay - leastDelay > LATE_MS;
      if (isLate) late += 1;
      return !isLate;
    },
    get lumpy() {
      return late >= MOST_LATE;
    },
  };
}
