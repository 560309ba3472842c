import { useEffect, useRef } from "react";
import type { Session } from "../../api/sessions";
import { announce } from "../../components/Announcer";
import { BADGES, isOver } from "../../words/status";
import { notify } from "./notice";

const MILESTONES = [25, 50, 75]; // of all percentages, to those who listen to the page

/** Tell changes of the status and a few milestones to those who listen, and the end to who asked. */
export function useSpokenProgress(session: Session): void {
  const before = useRef(session);
  useEffect(() => {
    const was = before.current;
    before.current = session;
    const words = news(was, session);
    if (words) announce(words);
    if (was.status !== session.status && isOver(session.status)) notify(session);
  });
}

/** What is worth saying of a change; empty for most. Pure. */
export function news(was: Session, is: Session): string {
  const { title, status, progress, error } = is;
  if (was.status !== status) {
    if (status === "completed") return `${title}: the transcript is ready.`;
    if (status === "failed") return `${title} failed. ${error?.message ?? ""}`;
    return `${title}: ${BADGES[status]}.`;
  }
  const passed = MILESTONES.some((mark) => was.progress < mark && progress >= mark);
  return passed ? `${progress} %` : "";
}
