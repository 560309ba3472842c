import type { Dispose } from "./model";

/** Timers that are late by so much were not late: the machine slept. */
const JUMP_MS = 4000;
const TICK_MS = 1000;

/** What happens to a page: it is looked at again, its network changes, it is put away. */
export interface PageEvents {
  /** Somebody looks again. `changed`: connections made before may be dead. */
  wake(changed: boolean): void;
  /** The network is gone, as far as the browser knows. */
  offline(): void;
  /** It is put away, and may or may not come back. */
  sleep(): void;
}

export interface Page {
  /** For how long nobody has looked, in milliseconds. */
  hiddenMs(): number;
  readonly dispose: Dispose;
}

/** Tells of what happens to this page; of nothing where there is none. */
export function watchPage(events: PageEvents): Page {
  if (typeof document === "undefined") return { hiddenMs: () => 0, dispose: () => {} };
  const ending = new AbortController();
  const on = (target: EventTarget, names: string, act: (event: Event) => void) => {
    for (const name of names.split(" ")) {
      target.addEventListener(name, act, { signal: ending.signal });
    }
  };
  let hiddenAt = document.hidden ? Date.now() : 0;
  on(document, "visibilitychange", () => {
    hiddenAt = document.hidden ? Date.now() : 0;
    if (!hiddenAt) events.wake(false);
  });
  on(window, "online", () => events.wake(true));
  on(window, "offline", () => events.offline());
  on(document, "resume", () => events.wake(true));
  on(window, "pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) events.wake(true);
  });
  on(document, "freeze", () => events.sleep());
  on(window, "pagehide", () => events.sleep());

  let tickedAt = Date.now();
  const ticking = setInterval(() => {
    const sleptMs = Date.now() - tickedAt - TICK_MS;
    tickedAt = Date.now();
    if (sleptMs > JUMP_MS && !document.hidden) events.wake(false);
  }, TICK_MS);

  return {
    hiddenMs: () => (hiddenAt ? Date.now() - hiddenAt : 0),
    dispose: () => {
      ending.abort();
      clearInterval(ticking);
    },
  };
}
