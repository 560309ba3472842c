import { useInfiniteQuery } from "@tanstack/react-query";
import type { Connection, StatusMessage } from "quartapp-status";
import { useSessions } from "quartapp-status/react";
import { useEffect, useRef } from "react";
import { useViewer } from "../../account/Gate";
import { signedOut } from "../../api/queryClient";
import { type Session, type SessionFilter, sessionListQuery } from "../../api/sessions";
import { useTiming } from "../../api/timing";
import { withStatus } from "../../api/withStatus";
import { announce } from "../../components/Announcer";
import { isOver } from "../../words/status";
import { reasonsToRenew, useRenewal } from "./useRenewal";

/** A list of sessions, each as it is now. */
export interface LiveList {
  readonly sessions: readonly Session[];
  /** All belong to one person, whom the page names. */
  readonly isOfOne: boolean;
  readonly isLoaded: boolean;
  readonly error: unknown;
  readonly hasMore: boolean;
  readonly isLoadingMore: boolean;
  readonly connection: Connection;
  readonly isStale: boolean;
  readonly clockOffsetMs: number;
  /** The latest status message of a session, if any came. */
  readonly status: (sessionId: string) => StatusMessage | undefined;
  /** A session as it is now. */
  readonly latest: (session: Session) => Session;
  readonly refetch: () => void;
  readonly showMore: () => void;
}

/** The sessions that match, kept up to date by the one stream for all of them. */
export function useSessionList(filter: SessionFilter): LiveList {
  const query = useInfiniteQuery({
    ...sessionListQuery(filter),
    placeholderData: (before) => before,
  });
  const { id: viewer } = useViewer();
  const live = useSessions({ viewer, ...useTiming() });
  const listed = query.data?.pages.flatMap((page) => page.sessions) ?? [];
  const byId = new Map(listed.map((session) => [session.id, session]));
  const latest = (session: Session) =>
    withStatus(byId.get(session.id) ?? session, live.statuses.get(session.id));
  useRenewal(reasonsToRenew(byId, live.statuses, filter.status));
  useAnnouncements(byId, live.statuses);
  const isSignedOut = live.error?.code === "signed_out";
  useEffect(() => {
    if (isSignedOut) signedOut();
  }, [isSignedOut]);
  return {
    sessions: listed
      .map(latest)
      .filter(({ id, status }) => !live.gone.has(id) && (filter.status ?? status) === status),
    isOfOne: filter.ownerId !== null,
    isLoaded: query.data !== undefined,
    error: query.error,
    hasMore: query.hasNextPage,
    isLoadingMore: query.isFetchingNextPage,
    connection: live.connection,
    isStale: live.isStale,
    clockOffsetMs: live.clockOffsetMs,
    status: (sessionId) => live.statuses.get(sessionId),
    latest,
    refetch: () => void query.refetch(),
    showMore: () => void query.fetchNextPage(),
  };
}

type Listed = ReadonlyMap<string, Session>;
type Statuses = ReadonlyMap<string, StatusMessage>;

/** Those who listen hear of every end, and of nothing else. */
function useAnnouncements(listed: Listed, statuses: Statuses): void {
  const running = useRef(new Set<string>());
  useEffect(() => {
    for (const { session_id, status } of statuses.values()) {
      if (!isOver(status)) running.current.add(session_id);
      else if (running.current.delete(session_id)) tellEnd(listed.get(session_id), status);
    }
  });
}

function tellEnd(session: Session | undefined, status: Session["status"]): void {
  const title = session?.title ?? "A recording";
  if (status === "completed") announce(`${title}: the transcript is ready.`);
  else announce(`${title}: ${status}.`);
}
