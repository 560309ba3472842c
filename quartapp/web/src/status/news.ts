import type { Dispose, Followed, Segment, StatusMessage, StatusProblem } from "./model";

/** A status event, or the latest status as polled. */
export interface StatusNews {
  readonly type: "status";
  readonly message: StatusMessage;
  /** The place in the queue, where it was said; undefined where it was not. */
  readonly position?: number | null;
  /** Nothing comes after it. */
  readonly last: boolean;
  /** It holds whatever was known before: the server has lost what came after it. */
  readonly anew?: boolean;
}

/** Pieces of the transcript. With `anew` they are all there are. */
export interface SegmentNews {
  readonly type: "segments";
  readonly segments: readonly Segment[];
  readonly anew?: boolean;
}

/** A session was deleted: the followed one, or with an id one of a list. */
export interface GoneNews {
  readonly type: "gone";
  readonly sessionId: string | null;
}

/**
 * Why a stream ended. `failed`: the connection broke, or never came to be. `refused`: the server
 * answered otherwise; browsers do not say how. `replaced`: its slot was taken over. The others are
 * the server's own words for it.
 */
export type Ending =
  | "failed"
  | "refused"
  | "idle"
  | "lifetime"
  | "restarting"
  | "unauthorized"
  | "replaced";

/** What a stream or a polling tells. All but hello and endings may be relayed and stored as is. */
export type News =
  | StatusNews
  | SegmentNews
  | GoneNews
  /** A stream has begun. */
  | { readonly type: "hello"; readonly serverTimeMs: number; readonly heartbeatMs: number }
  /** Nothing new; with the server's time, where it was said. */
  | { readonly type: "alive"; readonly serverTimeMs: number | null }
  /** The stream is over, and its source with it. */
  | { readonly type: "ended"; readonly why: Ending }
  /** A poll failed; it goes on, after at least so long where the server named a time. */
  | { readonly type: "unanswered"; readonly retryAfterMs: number }
  /** Polls are refused for good, and have stopped. */
  | { readonly type: "refused"; readonly problem: StatusProblem };

/** Changes of what is known; plain data that a tab can send to another. */
export type Signal =
  | StatusNews
  | SegmentNews
  | GoneNews
  | { readonly type: "facts"; readonly facts: Partial<Followed> };

/** Where news come from: a stream, or polling. Each subscription is one of its own. */
export interface StatusSource {
  /** Begins now. After `ended` and `refused` nothing comes; nor after the disposer was called. */
  subscribe(listener: (news: News) => void): Dispose;
}
