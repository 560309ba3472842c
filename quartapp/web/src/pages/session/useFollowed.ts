import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import type { Connection, StatusMessage } from "quartapp-status";
import { useTranscriptionStatusSSE } from "quartapp-status/react";
import { useEffect, useState } from "react";
import { useViewer } from "../../account/Gate";
import { signedOut } from "../../api/queryClient";
import {
  cancelSession,
  LISTS,
  retrySession,
  type Segment,
  type Session,
  sessionQuery,
  statusQuery,
  transcriptQuery,
} from "../../api/sessions";
import { useTiming } from "../../api/timing";
import { withStatus } from "../../api/withStatus";
import { isOver } from "../../words/status";

/** A session as it is now, how that is known, and what can be done. */
export interface FollowedSession {
  readonly session: Session;
  /** The latest message; null before any. */
  readonly message: StatusMessage | null;
  readonly segments: readonly Segment[];
  readonly isTextLoading: boolean;
  readonly connection: Connection;
  readonly isStale: boolean;
  readonly clockOffsetMs: number;
  /** Why it can no longer be shown: it was deleted, or access to it was withdrawn. */
  readonly loss: "gone" | "forbidden" | null;
  /** Why the last decision could not be carried out. */
  readonly decisionError: unknown;
  readonly isDeciding: boolean;
  readonly cancel: () => void;
  readonly retry: () => void;
}

/** Follow a session to its end. One that is over when it is loaded is read, and not followed. */
export function useFollowed(loaded: Session): FollowedSession {
  const { id } = loaded;
  const [follows, setFollows] = useState(!isOver(loaded.status));
  const viewer = useViewer();
  const live = useTranscriptionStatusSSE(follows ? id : null, {
    segments: true,
    viewer: viewer.id,
    ...useTiming(),
  });
  const told = useQuery({ ...statusQuery(id), enabled: !follows });
  const text = useQuery({ ...transcriptQuery(id), enabled: !follows && loaded.segments > 0 });
  const session = {
    ...withStatus(loaded, live.status),
    ...(live.queuePosition !== null && { queue_position: live.queuePosition }),
  };
  useReloadWhenBehind(loaded, session);
  useEffect(() => {
    if (live.error?.code === "signed_out") signedOut();
  }, [live.error]);
  useFollowAgain(loaded, follows ? live : null, () => setFollows(true));
  const decisions = useDecisions(id);
  return {
    session,
    message: live.status ?? told.data ?? null,
    segments: follows ? live.segments : (text.data ?? []),
    isTextLoading: !follows && text.isPending,
    connection: follows ? live.connection : "closed",
    isStale: live.isStale,
    clockOffsetMs: live.clockOffsetMs,
    loss: lossOf(live.error?.code),
    ...decisions,
  };
}

/** What an error's code says of a session that was seen before. */
export function lossOf(code: string | undefined): FollowedSession["loss"] {
  if (code === "gone" || code === "not_found") return "gone";
  return code === "forbidden" ? "forbidden" : null;
}

type Live = ReturnType<typeof useTranscriptionStatusSSE>;

/** Follow what was over and has been begun again: here, in another tab, or by somebody else. */
function useFollowAgain(loaded: Session, live: Live | null, follow: () => void): void {
  const isRunning = !isOver(loaded.status);
  const isClosed = live?.connection === "closed" && live.error === null;
  const isAnew = isClosed && loaded.attempt > (live.status?.attempt ?? 0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each attempt
  useEffect(() => {
    if (!isRunning) return;
    if (live === null) follow();
    else if (isAnew) live.retry();
  }, [isRunning, isAnew, live === null, loaded.attempt]);
}

/** Times, engine and the like are not in messages: read them when what was loaded is behind. */
function useReloadWhenBehind(loaded: Session, { id, status, attempt }: Session): void {
  const client = useQueryClient();
  const isBehind = loaded.status !== status || loaded.attempt !== attempt;
  // biome-ignore lint/correctness/useExhaustiveDependencies: each change is a reason
  useEffect(() => {
    if (!isBehind) return;
    void client.invalidateQueries({ queryKey: sessionQuery(id).queryKey, exact: true });
    void client.invalidateQueries({ queryKey: LISTS });
  }, [client, id, status, attempt, isBehind]);
}

function useDecisions(id: string) {
  const client = useQueryClient();
  const { queryKey } = sessionQuery(id);
  const then = {
    onSuccess: (session: Session) => client.setQueryData(queryKey, session),
    // What cannot be done has mostly been done elsewhere.
    onError: () => client.invalidateQueries({ queryKey, exact: true }),
  };
  const cancelling = useMutation({ mutationFn: () => cancelSession(id), ...then });
  const retrying = useMutation({ mutationFn: () => retrySession(id), ...then });
  return {
    decisionError: cancelling.error ?? retrying.error,
    isDeciding: cancelling.isPending || retrying.isPending,
    cancel: () => {
      retrying.reset();
      cancelling.mutate();
    },
    retry: () => {
      cancelling.reset();
      retrying.mutate();
    },
  };
}
