import type { StatusMessage } from "quartapp-status";
import { isOver } from "../words/status";
import type { Session } from "./sessions";

/**
 * A session as the latest message about it says. The session itself wins where the message is of
 * an earlier attempt, or has not yet heard of the end. Pure.
 */
export function withStatus(session: Session, message: StatusMessage | null | undefined): Session {
  if (!message || message.attempt < session.attempt) return session;
  const isBehind = isOver(session.status) && !isOver(message.status);
  if (isBehind && message.attempt === session.attempt) return session;
  const { status, stage, progress, attempt, segments, error } = message;
  const waits = status === "queued";
  return {
    ...session,
    status,
    stage,
    progress,
    attempt,
    segments,
    error,
    queue_position: waits ? session.queue_position : null,
    estimated_start: waits ? session.estimated_start : null,
  };
}
