import type { Dispose } from "./model";

/**
 * Queue for the lock of this name, of which a browser has one for all tabs of an origin (Web
 * Locks). `held` is called once it is one's own, `failed` when there will be none. Returns what
 * gives it back, or leaves the queue; after that nothing is called.
 */
export function queueForLock(name: string, held: () => void, failed: () => void): Dispose {
  const ending = new AbortController();
  let leave = () => ending.abort();
  const hold = () =>
    new Promise<void>((release) => {
      leave = release;
      held();
    });
  navigator.locks.request(name, { signal: ending.signal }, hold).catch(() => {
    if (!ending.signal.aborted) failed();
  });
  return () => leave();
}
