import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import {
  type Dispose,
  retrySession,
  retrySessions,
  type SessionState,
  type SessionsState,
  type StatusOptions,
  UNKNOWN_SESSION,
  UNKNOWN_SESSIONS,
  watchSession,
  watchSessions,
} from "./index";

interface Retry {
  /** Follow it again: after an error, or after its work was begun again. */
  readonly retry: () => void;
}

const NOTHING_FOLLOWED: SessionState = { ...UNKNOWN_SESSION, connection: "closed" };

/**
 * The live status of one session; of none with null. What the options hold may be made anew for
 * each rendering: `baseUrl`, `viewer` and `segments` alone begin another following.
 */
export function useTranscriptionStatusSSE(
  sessionId: string | null,
  options: StatusOptions = {},
): SessionState & Retry {
  const stable = useStable(options);
  const watch = useCallback(
    (listener: (state: SessionState) => void) =>
      sessionId === null ? () => {} : watchSession(sessionId, listener, stable),
    [sessionId, stable],
  );
  const retry = useCallback(
    () => sessionId !== null && retrySession(sessionId, stable),
    [sessionId, stable],
  );
  return useWatched(watch, sessionId === null ? NOTHING_FOLLOWED : UNKNOWN_SESSION, retry);
}

/** The live status of all sessions that the viewer may see, over one stream. */
export function useSessions(options: StatusOptions = {}): SessionsState & Retry {
  const stable = useStable(options);
  const watch = useCallback(
    (listener: (state: SessionsState) => void) => watchSessions(listener, stable),
    [stable],
  );
  const retry = useCallback(() => retrySessions(stable), [stable]);
  return useWatched(watch, UNKNOWN_SESSIONS, retry);
}

function useWatched<State>(
  watch: (listener: (state: State) => void) => Dispose,
  unknown: State,
  retry: () => void,
): State & Retry {
  const store = useMemo(() => {
    let state = unknown;
    return {
      get: () => state,
      subscribe: (onChange: () => void) =>
        watch((next) => {
          state = next;
          onChange();
        }),
    };
  }, [watch, unknown]);
  const state = useSyncExternalStore(store.subscribe, store.get, () => unknown);
  return useMemo(() => ({ ...state, retry }), [state, retry]);
}

/** The same object until what tells followings apart has changed; functions and times are the latest. */
function useStable(options: StatusOptions): StatusOptions {
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const { baseUrl, viewer, segments } = options;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the others may be new each time
  return useMemo(() => lateBound(options, latest), [baseUrl, viewer, segments]);
}

function lateBound(options: StatusOptions, latest: { current: StatusOptions }): StatusOptions {
  const { headers, ticket } = options;
  return {
    ...options,
    get pollMs() {
      return latest.current.pollMs;
    },
    get streamRetryMs() {
      return latest.current.streamRetryMs;
    },
    ...(headers && {
      headers: () => {
        const now = latest.current.headers ?? headers;
        return typeof now === "function" ? now() : now;
      },
    }),
    ...(ticket && { ticket: (id: string) => (latest.current.ticket ?? ticket)(id) }),
  };
}
