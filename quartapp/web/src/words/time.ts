const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

const count = (number: number, word: string) => `${number} ${word}${number === 1 ? "" : "s"}`;
const two = (number: number) => String(number).padStart(2, "0");

/** `1:05`, or `1:01:05` from an hour on. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor((whole % HOUR_S) / MINUTE_S);
  if (whole < HOUR_S) return `${minutes}:${two(whole % MINUTE_S)}`;
  return `${Math.floor(whole / HOUR_S)}:${two(minutes)}:${two(whole % MINUTE_S)}`;
}

/** `1 minute 5 seconds`, for those who cannot see `1:05`. */
export function spoken(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / HOUR_S), "hour"],
    [Math.floor((whole % HOUR_S) / MINUTE_S), "minute"],
    [whole % MINUTE_S, "second"],
  ] as const;
  const said = parts.filter(([number]) => number > 0).map(([number, word]) => count(number, word));
  return said.join(" ") || "0 seconds";
}

/** `About 2 minutes left`; coarse, since it is an estimate. */
export function timeLeft(seconds: number): string {
  if (seconds < 10) return "A few seconds left";
  if (seconds < 45) return "Less than a minute left";
  if (seconds < 90) return "About a minute left";
  if (seconds < 55 * MINUTE_S) {
    return `About ${count(Math.round(seconds / MINUTE_S), "minute")} left`;
  }
  const halves = Math.round(seconds / (HOUR_S / 2));
  return halves <= 2 ? "About an hour left" : `About ${halves / 2} hours left`;
}

/** The time of day in the reader's manner, such as `10:32`; with the day when it is not today's. */
export function timeOfDay(ms: number, nowMs: number): string {
  const then = new Date(ms);
  const sameDay = then.toDateString() === new Date(nowMs).toDateString();
  const day = sameDay ? {} : ({ weekday: "short" } as const);
  return then.toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit", ...day });
}

/** `just now`, `5 minutes ago`, `yesterday`, then the date. */
export function ago(iso: string, nowMs: number): string {
  const then = new Date(iso);
  const seconds = (nowMs - then.getTime()) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 55 * MINUTE_S) {
    return `${count(Math.max(1, Math.round(seconds / MINUTE_S)), "minute")} ago`;
  }
  if (seconds < DAY_S) return `${count(Math.round(seconds / HOUR_S), "hour")} ago`;
  if (seconds < 2 * DAY_S) return "yesterday";
  return then.toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** Date and time in full, for a tooltip. */
export function dateAndTime(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
}
