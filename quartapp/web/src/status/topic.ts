import type { Followed } from "./model";
import type { News, Signal } from "./news";
import type { Ask } from "./request";

/** What can be followed: one session, or all of the viewer. */
export interface Topic<State extends Followed> {
  /** Tells topics of one server apart. */
  readonly name: string;
  /** The stream's path and query. */
  readonly streamPath: string;
  /** The session a ticket is asked for; null for all sessions, for which there are none. */
  readonly sessionId: string | null;
  readonly unknown: State;
  after(state: State, signal: Signal): State;
  /** Signals that make whoever knows nothing know this. */
  signals(state: State): readonly Signal[];
  /** A new run of polls: each call asks for what is new, given what is known. */
  polls(known: () => State): (ask: Ask) => Promise<readonly News[]>;
}
