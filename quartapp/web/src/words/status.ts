import { isTerminal } from "quartapp-status";
import type { Schemas } from "../api/client";

export type Status = Schemas["Status"];

/** One word for each status. */
export const BADGES: Record<Status, string> = {
  queued: "Waiting",
  processing: "Transcribing",
  completed: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** Whether nothing more will happen by itself. */
export function isOver(status: Status): boolean {
  return isTerminal({ status });
}
