import type { LatestStatus, Segment, SessionState } from "./model";
import type { News } from "./news";
import { type Ask, Refused } from "./request";
import { isTerminal, sessionAfter, sessionSignals, UNKNOWN_SESSION } from "./state";
import type { Topic } from "./topic";

/** One session; with `segments` its transcript too. */
export function sessionTopic(sessionId: string, segments = false): Topic<SessionState> {
  const path = `/api/v1/sessions/${encodeURIComponent(sessionId)}`;
  return {
    name: `session ${sessionId}${segments ? " with segments" : ""}`,
    streamPath: `${path}/status/stream${segments ? "?segments=true" : ""}`,
    sessionId,
    unknown: UNKNOWN_SESSION,
    after: sessionAfter,
    signals: sessionSignals,
    polls: (known) => {
      let etag: string | null = null;
      return async (ask) => {
        const { body, serverTimeMs, ...answer } = await ask(`${path}/status`, etag);
        const alive: News = { type: "alive", serverTimeMs };
        if (body === undefined) return [alive];
        const { queue_position: position, ...message } = body as LatestStatus;
        const missing = segments && message.segments > known().segments.length;
        const news = missing ? await transcript(ask, path) : [];
        etag = answer.etag;
        return [alive, ...news, { type: "status", message, position, last: isTerminal(message) }];
      };
    },
  };
}

async function transcript(ask: Ask, path: string): Promise<readonly News[]> {
  try {
    const { body } = await ask(`${path}/transcript.json`);
    return [{ type: "segments", segments: (body as { segments: Segment[] }).segments }];
  } catch (error) {
    // There was text when the status was said; a retry may have taken it away.
    if (error instanceof Refused && error.problem.code === "not_found") return [];
    throw error;
  }
}
