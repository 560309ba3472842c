/** Live status of transcriptions in a browser, whatever stands between it and the server. */

import { listTopic } from "./listTopic";
import type { Dispose, SessionState, SessionsState } from "./model";
import type { StatusOptions } from "./options";
import { sessionTopic } from "./sessionTopic";
import { restart, watch } from "./shared";

export { listTopic } from "./listTopic";
export type {
  Connection,
  Dispose,
  Followed,
  LatestStatus,
  Segment,
  SessionState,
  SessionsState,
  StatusMessage,
  StatusProblem,
} from "./model";
export type { Ending, News, StatusSource } from "./news";
export type { EventSourceConstructor, StatusOptions } from "./options";
export { StatusPolling } from "./polling";
export { sessionTopic } from "./sessionTopic";
export { isTerminal, UNKNOWN_SESSION, UNKNOWN_SESSIONS } from "./state";
export { StatusStream, type StreamStart } from "./stream";
export type { Topic } from "./topic";

/**
 * Follow one session until it is over. The listener is called at once with what is known, and
 * after each change, at most once in a frame; what it throws is not caught.
 */
export function watchSession(
  sessionId: string,
  listener: (state: SessionState) => void,
  options: StatusOptions = {},
): Dispose {
  return watch(sessionTopic(sessionId, options.segments), options, listener);
}

/** Follow all sessions the viewer may see: those at work, and what becomes of them. */
export function watchSessions(
  listener: (state: SessionsState) => void,
  options: StatusOptions = {},
): Dispose {
  return watch(listTopic(), options, listener);
}

/**
 * Follow a watched session again: after an error, or after its work was begun again. Of the
 * options those matter that tell sessions apart: `baseUrl`, `viewer`, `segments`.
 */
export function retrySession(sessionId: string, options: StatusOptions = {}): void {
  restart(sessionTopic(sessionId, options.segments), options);
}

/** Follow the watched list again, after an error. */
export function retrySessions(options: StatusOptions = {}): void {
  restart(listTopic(), options);
}
