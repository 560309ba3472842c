import type { Followed, Segment, SessionState, SessionsState, StatusMessage } from "./model";
import type { SegmentNews, Signal, StatusNews } from "./news";

const BEGINNING: Followed = {
  connection: "connecting",
  isStale: false,
  lastEventAt: null,
  error: null,
  clockOffsetMs: 0,
};

/** Before anything is known of a session. */
export const UNKNOWN_SESSION: SessionState = {
  ...BEGINNING,
  status: null,
  queuePosition: null,
  segments: [],
};

/** Before anything is known of a list. */
export const UNKNOWN_SESSIONS: SessionsState = {
  ...BEGINNING,
  statuses: new Map(),
  gone: new Set(),
};

/** What is known of a session after a signal. Nothing is applied twice or backwards: ids decide. */
export function sessionAfter(state: SessionState, signal: Signal): SessionState {
  switch (signal.type) {
    case "status":
      return afterStatus(state, signal);
    case "segments":
      return { ...state, segments: mergedSegments(state.segments, signal) };
    case "facts":
      return { ...state, ...signal.facts };
    default:
      return state;
  }
}

/** What is known of a list after a signal. */
export function sessionsAfter(state: SessionsState, signal: Signal): SessionsState {
  switch (signal.type) {
    case "status": {
      const { message, anew } = signal;
      const known = state.statuses.get(message.session_id);
      if (!anew && known && known.id >= message.id) return state;
      const statuses = new Map(anew ? [] : state.statuses).set(message.session_id, message);
      const gone = new Set(state.gone);
      return { ...state, statuses, gone: gone.delete(message.session_id) ? gone : state.gone };
    }
    case "gone": {
      if (!signal.sessionId) return state;
      const statuses = new Map(state.statuses);
      statuses.delete(signal.sessionId);
      return { ...state, statuses, gone: new Set(state.gone).add(signal.sessionId) };
    }
    case "facts":
      return { ...state, ...signal.facts };
    default:
      return state;
  }
}

/** Signals that make one who knows nothing know this of a session. */
export function sessionSignals(state: SessionState): Signal[] {
  const { status, segments, queuePosition: position, ...facts } = state;
  const signals: Signal[] = [{ type: "facts", facts }];
  if (status) signals.unshift({ type: "status", message: status, position, last: false });
  if (segments.length) signals.unshift({ type: "segments", segments });
  return signals;
}

/** Signals that make one who knows nothing know this of a list. */
export function sessionsSignals({ statuses, gone, ...facts }: SessionsState): Signal[] {
  return [
    ...[...statuses.values()].map((message): Signal => ({ type: "status", message, last: false })),
    ...[...gone].map((sessionId): Signal => ({ type: "gone", sessionId })),
    { type: "facts", facts },
  ];
}

/** Whether a session's work has ended; a retry begins it again. */
export function isTerminal({ status }: Pick<StatusMessage, "status">): boolean {
  return status !== "queued" && status !== "processing";
}

function afterStatus(state: SessionState, news: StatusNews): SessionState {
  const { message, position, anew } = news;
  const newest = anew ? 0 : (state.status?.id ?? 0);
  if (message.id < newest) return state;
  const queuePosition = position === undefined ? toldPosition(message) : position;
  if (message.id === newest) return position === undefined ? state : { ...state, queuePosition };
  // A retry may begin the transcript again, and says so by counting fewer.
  const segments =
    message.segments < state.segments.length
      ? state.segments.slice(0, message.segments)
      : state.segments;
  return { ...state, status: message, queuePosition, segments };
}

/** Streams tell the place in the queue as part of their sentence only. */
function toldPosition({ status, message }: StatusMessage): number | null {
  if (status !== "queued") return null;
  if (message === "Next in line") return 1;
  const before = /: (\d+) before it$/.exec(message)?.[1];
  return before === undefined ? null : Number(before) + 1;
}

/** In the order of their places, each once. */
function mergedSegments(known: readonly Segment[], news: SegmentNews): readonly Segment[] {
  if (news.anew) return news.segments;
  const merged = [...known];
  for (const segment of news.segments) {
    let place = merged.length;
    while (place > 0 && (merged[place - 1] as Segment).idx > segment.idx) place -= 1;
    if (merged[place - 1]?.idx !== segment.idx) merged.splice(place, 0, segment);
  }
  return merged;
}
