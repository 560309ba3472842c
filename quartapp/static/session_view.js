// One recording: live status, transcript, sound, and what can be done with it.

import {
  cancelSession, deleteSession, getSession, getStatus, getTranscript, retrySession, sessionUrl,
} from "./api.js";
import { announce, say, setBadge, setBar, setTitle, show, showNotice } from "./page.js";
import { watchStatus } from "./status_stream.js";
import { BADGES, clock, isOver, nextStep, size, timeLeft, when } from "./words.js";

const RENDER_EVERY_MS = 100; // however quickly messages come
const COUNT_DOWN_MS = 5000;
const OVERDUE_S = 15; // an estimate passed by so much was wrong
const SAID_ALOUD = [25, 50, 75]; // of all percentages, to those who listen to the page

const CONNECTIONS = {
  connecting: "○ Connecting…",
  live: "● Live updates",
  reconnecting: "○ Reconnecting…",
  polling: "◐ Live updates are not available; checking every few seconds",
  ended: "",
};

// `signal` is aborted when the view is left.
export async function showSession(id, signal, onSignedOut) {
  let session;
  try {
    session = await getSession(id);
  } catch (problem) {
    showRefusal(problem, () => showSession(id, signal, onSignedOut));
    return;
  }
  if (signal.aborted) return;

  const parts = show("session-view");
  let status = null; // the latest status message
  let offsetMs = 0; // from this machine's clock to the server's
  let saidAloud = session.progress;
  let stopWatching = () => {};
  const render = atMostEvery(RENDER_EVERY_MS, draw);

  function watch() {
    stopWatching();
    stopWatching = watchStatus(id, {
      status(message, serverOffsetMs) {
        const was = session.status;
        status = message;
        offsetMs = serverOffsetMs;
        const { attempt, progress, segments, error } = message;
        session = { ...session, status: message.status, attempt, progress, segments, error };
        tellAloud(was);
        render();
      },
      connection(state) {
        parts.connection.dataset.state = state;
        say(parts.connection, CONNECTIONS[state]);
        if (state === "ended") finished();
      },
      refused(problem) {
        showRefusal(problem);
      },
      signedOut: onSignedOut,
    });
  }

  // The work is over: what the session holds now, and its text.
  async function finished() {
    try {
      session = await getSession(id);
      status ??= await getStatus(id).catch(() => null);
      draw();
      if (session.segments > 0 || session.status === "completed") showTranscript();
    } catch (problem) {
      say(parts.error, problem.message);
    }
  }

  async function showTranscript() {
    const partial = session.status !== "completed";
    const { text } = await getTranscript(id);
    const paragraphs = text.split("\n").map((line) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = line;
      return paragraph;
    });
    const silence = "No words were recognised in this recording.";
    if (!text) paragraphs[0].textContent = silence;
    parts.text.classList.toggle("soft", !text);
    parts.text.lang = session.language ?? "en";
    parts.text.replaceChildren(...paragraphs);
    say(parts["transcript-heading"], partial ? "Transcript so far" : "Transcript");
    parts.downloads.hidden = !text;
    parts.copy.hidden = !text || !navigator.clipboard;
    parts.transcript.hidden = false;
  }

  function draw() {
    const { status: state, progress, error } = session;
    const over = isOver(state);
    document.getElementById("main").dataset.status = state;
    setTitle(state === "processing" ? `${progress} % · ${session.title}` : session.title);
    say(parts.title, session.title);
    say(parts.facts, facts(session).join(" · "));
    setBadge(parts.badge, state, BADGES[state]);
    say(parts.percent, state === "queued" && progress === 0 ? "" : `${progress} %`);
    setBar(parts.bar, progress);
    parts.bar.setAttribute("aria-valuetext", `${BADGES[state]}, ${progress} %`);
    parts.bar.classList.toggle("stopped", over && state !== "completed");
    // A failure is told below, with its reason and what to do.
    say(parts.message, state === "failed" ? "" : status?.message ?? "");
    sayFigures();
    parts.failure.hidden = state !== "failed";
    if (state === "failed") {
      say(parts["failure-what"], error?.message ?? "The transcription failed.");
      say(parts["failure-next"], nextStep(error?.code));
    }
    parts.cancel.hidden = over;
    parts.retry.hidden = state !== "failed" && state !== "cancelled" || !session.has_audio;
    if (!over) parts.transcript.hidden = true;
    showRecording();
  }

  function showRecording() {
    const url = sessionUrl(id, "/audio");
    parts.recording.hidden = !session.has_audio;
    if (!session.has_audio || parts.audio.getAttribute("src")) return;
    parts.audio.src = url;
    parts["audio-link"].href = url;
  }

  function sayFigures() {
    const left = isOver(session.status) ? "" : countDown();
    say(parts.figures, [left, ...figures(status)].filter(Boolean).join(" · "));
  }

  // By the server's clock, since this machine's may be wrong.
  function countDown() {
    if (!status?.estimated_completion) return "";
    const leftMs = Date.parse(status.estimated_completion) - (Date.now() + offsetMs);
    return leftMs / 1000 < -OVERDUE_S ? "" : timeLeft(leftMs / 1000);
  }

  function tellAloud(was) {
    const { status: state, progress, title, error } = session;
    if (state !== was) {
      if (state === "completed") announce(`${title}: the transcript is ready.`);
      else if (state === "failed") announce(`${title} failed. ${error?.message ?? ""}`);
      else announce(`${title}: ${BADGES[state]}.`);
    } else if (SAID_ALOUD.some((mark) => saidAloud < mark && progress >= mark)) {
      announce(`${progress} %`);
    }
    saidAloud = progress;
  }

  async function attempt(button, action) {
    button.disabled = true;
    say(parts.error, "");
    try {
      await action();
    } catch (problem) {
      say(parts.error, problem.message);
    }
    button.disabled = false;
  }

  parts.cancel.addEventListener("click", () => attempt(parts.cancel, async () => {
    session = await cancelSession(id);
    draw();
    parts.retry.focus();
  }));
  parts.retry.addEventListener("click", () => attempt(parts.retry, async () => {
    session = await retrySession(id);
    status = null;
    saidAloud = session.progress;
    draw();
    parts.cancel.focus();
    watch();
  }));
  parts.delete.addEventListener("click", () => {
    parts.confirm.returnValue = "";
    parts.confirm.showModal();
  });
  parts.confirm.addEventListener("close", () => {
    if (parts.confirm.returnValue !== "delete") return;
    attempt(parts.delete, async () => {
      stopWatching(); // or it would be told of its own deletion
      try {
        await deleteSession(id);
      } catch (problem) {
        if (!isOver(session.status)) watch();
        throw problem;
      }
      location.assign("/");
    });
  });
  parts.copy.addEventListener("click", () => attempt(parts.copy, async () => {
    await navigator.clipboard.writeText(parts.text.innerText);
    say(parts.copy, "Copied");
    setTimeout(() => say(parts.copy, "Copy text"), 2000);
  }));
  parts.audio.addEventListener("error", () => {
    parts.audio.hidden = true;
    parts.unplayable.hidden = false;
  });
  for (const link of parts.downloads.querySelectorAll("a")) {
    link.href = sessionUrl(id, `/transcript.${link.dataset.format}`);
  }
  const countingDown = setInterval(sayFigures, COUNT_DOWN_MS);
  signal.addEventListener("abort", () => {
    stopWatching();
    clearInterval(countingDown);
  });

  draw();
  if (isOver(session.status)) finished();
  else watch();
}

function facts(session) {
  const known = [session.file_name];
  if (session.duration_s !== null) known.push(clock(session.duration_s));
  known.push(size(session.size_bytes), `uploaded ${when(session.created_at)}`);
  return known;
}

function figures(status) {
  if (!status) return [];
  const known = [];
  if (status.processing_speed) {
    known.push(`${status.processing_speed.toFixed(1)} times as fast as it plays`);
  }
  if (status.attempt > 1) known.push(`attempt ${status.attempt}`);
  return known;
}

function showRefusal(problem, again) {
  if (problem.status === 401) return; // the sign-in form is shown already
  if (problem.status === 403) {
    showNotice("Not yours to see",
      `${problem.message} Sign in with the account it belongs to, or ask its owner.`);
  } else if (problem.status === 404) {
    showNotice("Nothing here", problem.message);
  } else {
    showNotice("That did not work", problem.message, again);
  }
}

// Calls `action` at once, and again after the wait when it was asked for meanwhile.
function atMostEvery(waitMs, action) {
  let timer = 0;
  let asked = false;
  return function ask() {
    if (timer) {
      asked = true;
      return;
    }
    asked = false;
    action();
    timer = setTimeout(() => {
      timer = 0;
      if (asked) ask();
    }, waitMs);
  };
}
