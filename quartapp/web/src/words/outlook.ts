import { timeLeft, timeOfDay } from "./time";

const OVERDUE_S = 15; // an estimate passed by so much was wrong

/** `About 2 minutes left`; empty without an estimate. `serverNowMs` is the server's clock. */
export function remaining(completion: string | null | undefined, serverNowMs: number): string {
  if (!completion) return "";
  const leftS = (Date.parse(completion) - serverNowMs) / 1000;
  return leftS < -OVERDUE_S ? "" : timeLeft(leftS);
}

/** `finishes 10:32`, by the reader's clock; empty without an estimate that can still be kept. */
export function finishes(
  completion: string | null | undefined,
  serverNowMs: number,
  clockOffsetMs: number,
): string {
  if (!completion || Date.parse(completion) <= serverNowMs) return "";
  const atMs = Date.parse(completion) - clockOffsetMs;
  return `finishes ${timeOfDay(atMs, serverNowMs - clockOffsetMs)}`;
}

/** `Next in the queue · begins about 10:32`. */
export function waiting(
  position: number | null,
  start: string | null,
  serverNowMs: number,
  clockOffsetMs: number,
): string {
  const place = position === null ? "In the queue" : placeOf(position);
  const when = begins(start, serverNowMs, clockOffsetMs);
  return when ? `${place} · b${when.slice(1)}` : place;
}

/** `Begins about 10:32`; empty without an estimate that can still be kept. */
export function begins(start: string | null, serverNowMs: number, clockOffsetMs: number): string {
  if (!start || Date.parse(start) <= serverNowMs) return "";
  const atMs = Date.parse(start) - clockOffsetMs;
  return `Begins about ${timeOfDay(atMs, serverNowMs - clockOffsetMs)}`;
}

function placeOf(position: number): string {
  if (position <= 1) return "Next in the queue";
  return position === 2 ? "1 before it in the queue" : `${position - 1} before it in the queue`;
}
