// Upload, and the list of the caller's recordings.

import { getSessions, upload } from "./api.js";
import { announce, copy, say, setBadge, setBar, setTitle, show } from "./page.js";
import { BADGES, clock, isOver, size, specificStep, when } from "./words.js";

const REFRESH_MS = 3000;

// `signal` is aborted when the view is left.
export function showHome(signal) {
  setTitle("Recordings");
  const parts = show("home-view");
  showUpload(parts, signal);
  showList(parts, signal);
}

function showUpload(parts, signal) {
  let chosen = null;
  let key = "";
  let uploading = null;

  function choose(file) {
    if (!file || uploading) return;
    chosen = file;
    key = newKey();
    say(parts["file-name"], file.name);
    say(parts["file-note"], `${size(file.size)} · choose another`);
    say(parts.error, "");
    parts.details.hidden = false;
  }

  function setUploading(running) {
    uploading = running;
    parts.uploading.hidden = !running;
    parts.details.hidden = Boolean(running) || !chosen;
    parts.drop.hidden = Boolean(running);
  }

  function progressed(sent, total) {
    const percent = total ? Math.floor((100 * sent) / total) : 0;
    if (sent < total) {
      setBar(parts.bar, percent);
      say(parts.sent, `Uploading… ${percent} % (${size(sent)} of ${size(total)})`);
    } else {
      setBar(parts.bar, null);
      say(parts.sent, "Uploaded. Checking the recording…");
    }
  }

  async function send() {
    setUploading(upload(chosen, parts.title.value.trim(), key, progressed));
    setBar(parts.bar, 0);
    say(parts.sent, "Uploading…");
    say(parts.error, "");
    announce("Uploading");
    parts.stop.focus();
    try {
      const session = await uploading.done;
      uploading = null; // before leaving, which is only asked about during an upload
      location.assign(`/sessions/${session.id}`);
    } catch (problem) {
      setUploading(null);
      announce("");
      if (problem.code !== "stopped") say(parts.error, [problem.message, specificStep(problem.code)].filter(Boolean).join(" "));
      parts.upload.focus();
    }
  }

  parts.file.addEventListener("change", () => choose(parts.file.files[0]));
  parts.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen && !uploading) send();
  });
  parts.stop.addEventListener("click", () => uploading?.stop());
  addEventListener("beforeunload", (event) => {
    if (uploading) event.preventDefault();
  }, { signal });

  // A file dropped beside the zone would otherwise replace the page.
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    parts.drop.classList.toggle("over", depth > 0);
  };
  const onFiles = (name, act) => document.addEventListener(name, (event) => {
    if (carriesFiles(event)) act(event);
  }, { signal });
  onFiles("dragenter", () => mark(1));
  onFiles("dragleave", () => mark(-1));
  onFiles("dragover", (event) => event.preventDefault());
  onFiles("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    choose(event.dataTransfer.files[0]);
  });
}

// Not crypto.randomUUID: that is missing on plain http.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function showList(parts, signal) {
  const items = new Map(); // by session id
  let cursor = null; // of the oldest page shown
  let timer = 0;

  function place(session, before) {
    let item = items.get(session.id);
    if (!item) {
      item = newItem(session);
      items.set(session.id, item);
      parts.sessions.insertBefore(item.element, before);
    }
    item.update(session);
  }

  async function refresh() {
    clearTimeout(timer);
    try {
      const page = await getSessions();
      if (items.size === 0) cursor = page.next_cursor;
      drop(page);
      let next = parts.sessions.firstElementChild;
      for (const session of page.sessions) {
        place(session, next);
        next = items.get(session.id).element.nextElementSibling;
      }
      parts.empty.hidden = items.size > 0;
      parts.more.hidden = !cursor;
      say(parts["list-error"], "");
    } catch (problem) {
      if (problem.status === 401) return;
      say(parts["list-error"], problem.message);
    }
    plan();
  }

  // Takes out what is no longer in the newest page though it would belong there.
  function drop(page) {
    const shown = new Set(page.sessions.map((session) => session.id));
    const oldest = page.next_cursor ? page.sessions.at(-1).created_at : "";
    for (const [id, item] of items) {
      if (!shown.has(id) && item.session.created_at >= oldest) {
        item.element.remove();
        items.delete(id);
      }
    }
  }

  function plan() {
    clearTimeout(timer);
    if (signal.aborted) return;
    const running = [...items.values()].some(({ session }) => !isOver(session.status));
    const troubled = !parts["list-error"].hidden;
    if ((running || troubled) && !document.hidden) timer = setTimeout(refresh, REFRESH_MS);
  }

  parts.more.addEventListener("click", async () => {
    parts.more.disabled = true;
    try {
      const page = await getSessions(cursor);
      cursor = page.next_cursor;
      for (const session of page.sessions) place(session, null);
      parts.more.hidden = !cursor;
    } catch (problem) {
      say(parts["list-error"], problem.message);
    }
    parts.more.disabled = false;
  });

  document.addEventListener("visibilitychange", () => document.hidden || refresh(), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  refresh();
}

function newItem(session) {
  const { fragment, parts } = copy("session-item");
  const item = { element: fragment.firstElementChild, session, update };
  parts.link.href = `/sessions/${session.id}`;

  function update(latest) {
    item.session = latest;
    say(parts.title, latest.title);
    const word = BADGES[latest.status];
    const running = latest.status === "processing";
    setBadge(parts.badge, latest.status, running ? `${word} · ${latest.progress} %` : word);
    const length = latest.duration_s === null ? [] : [clock(latest.duration_s)];
    say(parts.facts, [...length, when(latest.created_at)].join(" · "));
    parts.bar.hidden = !running;
    setBar(parts.bar, latest.progress);
  }

  return item;
}
