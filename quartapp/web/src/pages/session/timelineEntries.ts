import type { StatusMessage } from "quartapp-status";

/** One line of what happened. */
export interface Entry {
  readonly id: number;
  readonly timestamp: string;
  readonly percent: number;
  readonly words: string;
  /** Such as which attempt it was, or how many updates are left out before it. */
  readonly detail: string;
  readonly tone: "plain" | "good" | "bad";
}

const MILESTONES = [10, 25, 50, 75, 90, 100];

/**
 * The events a reader cares for: changes of status, stage and attempt, other sentences than those
 * of plain progress, and milestones. Of the others only the number is told. Pure.
 */
export function timeline(events: readonly StatusMessage[]): Entry[] {
  const entries: Entry[] = [];
  let leftOut = 0;
  for (const [index, event] of events.entries()) {
    const before = events[index - 1];
    if (!isTelling(before, event)) {
      leftOut += 1;
      continue;
    }
    entries.push(entryOf(before, event, leftOut));
    leftOut = 0;
  }
  return entries;
}

function isTelling(before: StatusMessage | undefined, event: StatusMessage): boolean {
  if (!before) return true;
  if (before.status !== event.status || before.attempt !== event.attempt) return true;
  if (before.stage !== event.stage || event.stage !== "transcribing") return true;
  return MILESTONES.some((mark) => before.progress < mark && event.progress >= mark);
}

function entryOf(before: StatusMessage | undefined, event: StatusMessage, leftOut: number): Entry {
  const attempt = event.attempt > (before?.attempt ?? 1) ? `attempt ${event.attempt}` : "";
  const skipped = leftOut > 0 ? `${leftOut} ${leftOut === 1 ? "update" : "updates"} before` : "";
  return {
    id: event.id,
    timestamp: event.timestamp,
    percent: event.progress,
    words: event.error?.message ?? event.message,
    detail: [attempt, skipped].filter(Boolean).join(", "),
    tone: event.status === "completed" ? "good" : event.status === "failed" ? "bad" : "plain",
  };
}
