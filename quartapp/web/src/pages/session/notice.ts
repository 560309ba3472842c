import type { Session } from "../../api/sessions";

/** Whether to show a notification at the end of what is followed; for this visit. */
export const wantsNotice = {
  wanted: false,
  get: () => wantsNotice.wanted,
  set: (wanted: boolean) => {
    wantsNotice.wanted = wanted;
  },
};

/** Say by the browser's notification that a transcription is over, to who asked for it. */
export function notify({ id, title, status }: Session): void {
  if (!wantsNotice.wanted || !("Notification" in window)) return;
  const body =
    status === "completed" ? "The transcript is ready." : `The transcription ${PAST[status]}.`;
  try {
    const notice = new Notification(title, { body, tag: id, icon: "/static/favicon.svg" });
    notice.onclick = () => {
      window.focus();
      notice.close();
    };
  } catch {
    // Some phones have notifications for installed pages only, and say so no earlier.
  }
}

const PAST: Record<string, string> = { failed: "failed", cancelled: "was cancelled" };
