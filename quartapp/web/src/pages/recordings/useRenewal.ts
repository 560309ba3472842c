import { useQueryClient } from "@tanstack/react-query";
import type { StatusMessage } from "quartapp-status";
import { useEffect, useEffectEvent, useRef } from "react";
import { LISTS, type Session } from "../../api/sessions";
import type { Status } from "../../words/status";

const SETTLE_MS = 400;
const AT_MOST_EVERY_MS = 5000;

/**
 * Why the list must be fetched again, a word for each reason: a session it does not hold, or one
 * that began or ended while others wait, whose places have moved. All else is in the messages. Pure.
 */
export function reasonsToRenew(
  listed: ReadonlyMap<string, Session>,
  statuses: ReadonlyMap<string, StatusMessage>,
  wanted: Status | null,
): string[] {
  const someWait = [...listed.values()].some(({ id }) => statusOf(id) === "queued");
  return [...statuses.values()]
    .filter(({ session_id, status }) => {
      const known = listed.get(session_id);
      if (!known) return wanted === null || wanted === status;
      return someWait && known.status !== status;
    })
    .map(({ session_id, status }) => `${session_id} ${status}`);

  function statusOf(id: string) {
    return statuses.get(id)?.status ?? listed.get(id)?.status;
  }
}

/** Fetches every list again, once for each reason, soon, and at most every five seconds. */
export function useRenewal(reasons: readonly string[]): void {
  const client = useQueryClient();
  const answered = useRef(new Set<string>());
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const renewedAtMs = useRef(Number.NEGATIVE_INFINITY);

  const renew = useEffectEvent(() => {
    timer.current = undefined;
    renewedAtMs.current = performance.now();
    for (const reason of reasons) answered.current.add(reason);
    void client.invalidateQueries({ queryKey: LISTS });
  });

  useEffect(() => {
    if (timer.current !== undefined) return;
    if (reasons.every((reason) => answered.current.has(reason))) return;
    const dueInMs = renewedAtMs.current + AT_MOST_EVERY_MS - performance.now();
    timer.current = setTimeout(() => renew(), Math.max(SETTLE_MS, dueInMs));
  }, [reasons]);

  useEffect(
    () => () => {
      clearTimeout(timer.current);
      timer.current = undefined;
    },
    [],
  );
}
