import type { components } from "../api/schema";
import type { LatestStatus, SessionsState, StatusMessage } from "./model";
import type { News } from "./news";
import { type Ask, Refused } from "./request";
import { isTerminal, sessionsAfter, sessionsSignals, UNKNOWN_SESSIONS } from "./state";
import type { Topic } from "./topic";

type Session = components["schemas"]["SessionBody"];

/** Sessions whose status is asked for in one round, newest first; the others have theirs next. */
const MOST_ASKED = 10;

/** All sessions of the viewer. */
export function listTopic(): Topic<SessionsState> {
  return {
    name: "all sessions",
    streamPath: "/api/v1/status/stream",
    sessionId: null,
    unknown: UNKNOWN_SESSIONS,
    after: sessionsAfter,
    signals: sessionsSignals,
    polls: (known) => async (ask) => {
      const { body, serverTimeMs } = await ask("/api/v1/sessions?limit=50");
      const listed = (body as { sessions: Session[] }).sessions;
      const asked = changed(listed, known()).slice(0, MOST_ASKED);
      const news = await Promise.all(asked.map((id) => latest(ask, id)));
      return [{ type: "alive", serverTimeMs }, ...news];
    },
  };
}

/** The list has no messages, but shows whose have changed; what left it may have been deleted. */
function changed(listed: readonly Session[], { statuses }: SessionsState): string[] {
  const ids = new Set(listed.map(({ id }) => id));
  const news = listed.filter((session) => isNews(session, statuses.get(session.id)));
  const away = [...statuses.values()].filter((one) => !ids.has(one.session_id) && !isTerminal(one));
  return [...news.map(({ id }) => id), ...away.map((one) => one.session_id)];
}

function isNews(session: Session, known: StatusMessage | undefined): boolean {
  if (!known) return !isTerminal(session);
  return (["status", "stage", "progress", "attempt", "segments"] as const).some(
    (field) => session[field] !== known[field],
  );
}

async function latest(ask: Ask, sessionId: string): Promise<News> {
  try {
    const { body } = await ask(`/api/v1/sessions/${sessionId}/status`);
    return { type: "status", message: body as LatestStatus, last: false };
  } catch (error) {
    if (error instanceof Refused && error.problem.code !== "signed_out") {
      return { type: "gone", sessionId };
    }
    throw error;
  }
}
