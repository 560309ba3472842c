import type { Connection } from "quartapp-status";

interface Props {
  connection: Connection;
  isStale: boolean;
  /** How often is asked where no stream comes through, in seconds. */
  pollIntervalS: number;
}

/** How news comes here, or that it does not. */
export function ConnectionLine({ connection, isStale, pollIntervalS }: Props) {
  const words = wordsOf(connection, isStale, pollIntervalS);
  if (!words) return null;
  return (
    <p className="connection small" data-part="connection" data-state={connection}>
      {words}
    </p>
  );
}

const AWAY = "○ The server does not answer; trying again";

/** Where the browser has none, asking is the normal way and nothing to complain of. */
const hasStreams = () => typeof EventSource !== "undefined";

/** What is said of a connection; empty when it is over. */
export function wordsOf(connection: Connection, isStale: boolean, pollIntervalS: number): string {
  if (connection === "closed") return "";
  if (connection === "connecting") return "○ Connecting…";
  const every = `every ${Math.round(pollIntervalS)} s`;
  if (connection === "polling" && !hasStreams()) return isStale ? AWAY : `● Updated ${every}`;
  if (connection === "polling") {
    return isStale ? AWAY : `○ Checking ${every}, reconnecting`;
  }
  return isStale ? "○ Nothing heard for a while; reconnecting" : "● Live updates";
}
