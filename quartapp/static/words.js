// How numbers, times and states read. Pure.

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

export const BADGES = {
  queued: "Waiting",
  processing: "Transcribing",
  completed: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const isOver = (status) => status in { completed: 1, failed: 1, cancelled: 1 };

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

// `1:05`, or `1:01:05` from an hour on.
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor((whole % HOUR_S) / MINUTE_S);
  if (whole < HOUR_S) return `${minutes}:${two(whole % MINUTE_S)}`;
  return `${Math.floor(whole / HOUR_S)}:${two(minutes)}:${two(whole % MINUTE_S)}`;
}

// `about 2 minutes left`; coarse, since it is an estimate.
export function timeLeft(seconds) {
  if (seconds < 10) return "a few seconds left";
  if (seconds < 45) return "less than a minute left";
  if (seconds < 90) return "about a minute left";
  if (seconds < 55 * MINUTE_S) return `about ${count(Math.round(seconds / MINUTE_S), "minute")} left`;
  const halves = Math.round(seconds / (HOUR_S / 2));
  if (halves <= 2) return "about an hour left";
  return `about ${halves / 2} hours left`;
}

export function size(bytes) {
  if (bytes < 1000) return count(bytes, "byte");
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

// `just now`, `5 minutes ago`, `yesterday`, then the date.
export function when(iso, now = Date.now()) {
  const then = new Date(iso);
  const ago = (now - then.getTime()) / 1000;
  if (ago < 45) return "just now";
  if (ago < 55 * MINUTE_S) return `${count(Math.max(1, Math.round(ago / MINUTE_S)), "minute")} ago`;
  if (ago < DAY_S) return `${count(Math.round(ago / HOUR_S), "hour")} ago`;
  if (ago < 2 * DAY_S) return "yesterday";
  return then.toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

const TRY_AGAIN = "Try again: the work goes on after the text there is.";

const NEXT_STEPS = {
  not_audio: "Export the recording as MP3, M4A or WAV, and upload that.",
  no_audio_stream: "Choose a file that has sound.",
  empty_audio: "Record it again, or choose another file.",
  decode_failed: "The file may be damaged. Export or copy it again, and upload that.",
  audio_missing: "Upload the recording again.",
  language_unsupported: "Upload it again without a language, if it is English after all.",
  engine_unavailable: "Whoever runs this server has to set up speech recognition first.",
};

// What to do about an error, by its code; empty when there is nothing particular to say.
export const specificStep = (code) => NEXT_STEPS[code] ?? "";

// What to do after a failed transcription.
export const nextStep = (code) => NEXT_STEPS[code] ?? TRY_AGAIN;
