const EXPORT_AGAIN = "Export the recording as MP3, M4A or WAV, and upload that.";
const GO_ON = "Try again: the work goes on after the text there is.";
const LATER = "Try again in a few minutes. If it stays so, tell whoever runs this server.";
const OPERATOR = "Whoever runs this server has to set up speech recognition first.";
const OTHER_FILE = "The file may be damaged. Export or copy it again, and upload that.";

/** What to do about an error, by its code (docs/api.md lists them). */
const NEXT_STEPS: Readonly<Record<string, string>> = {
  not_audio: EXPORT_AGAIN,
  not_multipart: EXPORT_AGAIN,
  no_audio_stream: "Choose a file that has sound.",
  empty_audio: "Record it again, or choose another file.",
  empty_file: "Record it again, or choose another file.",
  unreadable_file: "It was moved, renamed or changed. Choose it again.",
  decode_failed: OTHER_FILE,
  recogniser_crashed: `${OTHER_FILE} Otherwise try again.`,
  recogniser_stalled: `${OTHER_FILE} Otherwise try again.`,
  too_large: "Export it as MP3 or M4A, which are smaller, or cut it into parts.",
  language_unsupported: "Choose another language, or leave it out.",
  audio_missing: "Upload the recording again.",
  storage_full: "Delete recordings you no longer need, or ask whoever runs this server for room.",
  storage_failed: LATER,
  unavailable: LATER,
  rate_limited: "Wait a minute, then try again.",
  upload_stalled: "Check your connection, then try again.",
  forbidden: "You may only upload for yourself and for patients assigned to you.",
  engine_unavailable: OPERATOR,
  recogniser_unavailable: OPERATOR,
  engine_refused: "Whoever runs this server has to look at the account of the speech service.",
  engine_away: LATER,
  engine_failed: GO_ON,
  job_timeout:
    "Try again: the work goes on after the text there is. Very long recordings go best in parts.",
  worker_lost: GO_ON,
  internal_error: LATER,
};

/** What a person can do about an error; empty when there is nothing particular to say. */
export function nextStep(code: string): string {
  return NEXT_STEPS[code] ?? "";
}

/** Errors that the same recording meets again. */
const LASTING = new Set([
  "not_audio",
  "no_audio_stream",
  "empty_audio",
  "decode_failed",
  "audio_missing",
  "language_unsupported",
]);

/** Whether trying the same again is what to do. */
export function isWorthRetrying(code: string | undefined): boolean {
  return code === undefined || !LASTING.has(code);
}

/** What to do after a failed transcription; always something. */
export function afterFailure(code: string | undefined): string {
  return (code && NEXT_STEPS[code]) || GO_ON;
}
