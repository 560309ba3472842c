import type { components } from "../api/schema";

/** One status event, as every transport carries it. */
export type StatusMessage = components["schemas"]["StatusBody"];

/** The latest status as polling answers it: with the place in the queue and the worker's last sign. */
export type LatestStatus = components["schemas"]["LatestStatusBody"];

/** A timed piece of the transcript; seconds from the recording's start. */
export type Segment = components["schemas"]["SegmentBody"];

/**
 * `connecting`: nothing has been heard yet, or the stream is opened again after it broke. `live`:
 * events come as they happen. `polling`: the status is asked for every few seconds, and the stream
 * is tried again meanwhile. `closed`: it is over, or may not be seen; nothing will come unless
 * `retry` is called, as after the session itself was retried.
 */
export type Connection = "connecting" | "live" | "polling" | "closed";

/** Why nothing comes, or nothing more. A `final` one is not tried again unless `retry` says so. */
export interface StatusProblem {
  readonly code: "signed_out" | "forbidden" | "not_found" | "gone" | "unreachable";
  /** A sentence for people. */
  readonly message: string;
  readonly final: boolean;
}

/** What is known of how it is followed. */
export interface Followed {
  readonly connection: Connection;
  /** What is shown may be old: nothing has been heard for longer than the transport promises. */
  readonly isStale: boolean;
  /** When anything was last heard, heartbeats and polls included; milliseconds of this clock. */
  readonly lastEventAt: number | null;
  readonly error: StatusProblem | null;
  /** What to add to this machine's clock to have the server's, in milliseconds. */
  readonly clockOffsetMs: number;
}

/** What is known of one session. Immutable: a change makes a new one. */
export interface SessionState extends Followed {
  readonly status: StatusMessage | null;
  /** While it waits (1 is begun next), as last polled or told; null when unknown. */
  readonly queuePosition: number | null;
  readonly segments: readonly Segment[];
}

/** What is known of all sessions of the viewer, by their ids. */
export interface SessionsState extends Followed {
  readonly statuses: ReadonlyMap<string, StatusMessage>;
  /** Sessions that were deleted while this was followed. */
  readonly gone: ReadonlySet<string>;
}

/** Stops listening. May be called more than once. */
export type Dispose = () => void;
