// Follows the status of one session: by the browser's EventSource, and by asking every few seconds
// while that does not work.

import { getStatus, sessionUrl } from "./api.js";
import { isOver } from "./words.js";

const POLL_MS = 3000;
const STREAM_AGAIN_MS = 30_000;
const HELLO_WITHIN_MS = 10_000;
const MAX_FAILURES = 3;
const CLIENT_ID = "quartapp.client-id";
const PROGRESS_EVENTS = ["progress", "complete", "failed", "cancelled"];

// One for each tab, kept over a reload: its new stream takes the place of its old one.
function clientId() {
  let id = sessionStorage.getItem(CLIENT_ID);
  if (!id) {
    id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
    sessionStorage.setItem(CLIENT_ID, id);
  }
  return id;
}

// Calls, until the returned function is called or the work is over:
//   on.status(message, serverOffsetMs)  each status message, in order, none twice; the offset is
//                                       what to add to this machine's clock to have the server's
//   on.connection(state)                "connecting", "live", "reconnecting", "polling", "ended"
//   on.refused(problem)                 it is gone, or may not be seen any more; the last call
//   on.signedOut()                      the last call
export function watchStatus(sessionId, on) {
  let source = null;
  let lastId = 0;
  let offsetMs = 0;
  let failures = 0; // of the stream, since it last worked
  let silenceMs = HELLO_WITHIN_MS;
  let silence = 0;
  let poller = null; // while asking, instead of being told
  let again = 0;

  function stop() {
    closeStream();
    stopPolling();
    clearTimeout(again);
  }

  function end() {
    stop();
    on.connection("ended");
  }

  function take(message) {
    if (message.id <= lastId) return;
    lastId = message.id;
    on.status(message, offsetMs);
  }

  function openStream() {
    silenceMs = HELLO_WITHIN_MS;
    const query = new URLSearchParams({ client_id: clientId() });
    if (lastId) query.set("last_event_id", lastId);
    source = new EventSource(sessionUrl(sessionId, `/status/stream?${query}`));
    expectNews();
    source.addEventListener("error", failed);
    source.addEventListener("hello", (event) => {
      const hello = JSON.parse(event.data);
      offsetMs = Date.parse(hello.server_time) - Date.now() || 0;
      silenceMs = 2500 * (hello.heartbeat_s || 15);
      failures = 0;
      stopPolling();
      clearTimeout(again);
      expectNews();
      on.connection("live");
    });
    for (const name of PROGRESS_EVENTS) {
      source.addEventListener(name, (event) => {
        expectNews();
        take(JSON.parse(event.data));
        if (name !== "progress") end();
      });
    }
    source.addEventListener("heartbeat", expectNews);
    source.addEventListener("reset", () => { lastId = 0; });
    source.addEventListener("replaced", fallBack);
    source.addEventListener("gone", () => {
      stop();
      on.refused({ status: 404, message: "This recording has been deleted." });
    });
    source.addEventListener("unauthorized", () => {
      stop();
      on.signedOut();
    });
    // After idle, lifetime and restarting the server ends the stream, and EventSource comes back.
  }

  function closeStream() {
    clearTimeout(silence);
    source?.close();
    source = null;
  }

  // A connection that has died on the way looks like one with nothing to say; heartbeats tell.
  function expectNews() {
    clearTimeout(silence);
    silence = setTimeout(fallBack, silenceMs);
  }

  function failed() {
    failures += 1;
    if (source.readyState === EventSource.CLOSED || failures >= MAX_FAILURES) {
      fallBack();
    } else {
      expectNews();
      if (!poller) on.connection("reconnecting");
    }
  }

  function fallBack() {
    closeStream();
    clearTimeout(again);
    again = setTimeout(openStream, STREAM_AGAIN_MS);
    startPolling();
  }

  function startPolling() {
    if (poller) return;
    const mine = { timer: 0 };
    poller = mine;
    ask();

    async function ask() {
      const answer = await getStatus(sessionId).catch((problem) => problem);
      if (poller !== mine) return;
      if (answer instanceof Error) {
        notAnswered(answer);
      } else {
        on.connection("polling");
        take(answer);
        if (isOver(answer.status)) end();
      }
      if (poller === mine) mine.timer = setTimeout(ask, POLL_MS);
    }
  }

  function stopPolling() {
    clearTimeout(poller?.timer);
    poller = null;
  }

  function notAnswered(problem) {
    if (problem.status === 401) {
      stop(); // whoever asked the API module to hear of this has been told
    } else if (problem.status === 403 || problem.status === 404) {
      stop();
      on.refused(problem);
    } else {
      on.connection("reconnecting");
    }
  }

  on.connection("connecting");
  openStream();
  return stop;
}
