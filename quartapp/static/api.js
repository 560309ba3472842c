// The HTTP API as functions. Every failure is a Problem, whose message is a sentence for a person.

export class Problem extends Error {
  name = "Problem";

  // status: the HTTP status, 0 when the server could not be reached.
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

const UNREACHABLE = "The server cannot be reached. Check the connection and try again.";

let signedOut = () => {};

// Calls the handler whenever an answer says that nobody is signed in.
export function whenSignedOut(handler) {
  signedOut = handler;
}

export const sessionUrl = (id, rest = "") => `/api/v1/sessions/${id}${rest}`;

export const register = (email, password) => enter("register", email, password);
export const signIn = (email, password) => enter("login", email, password);
export const signOut = () => request("POST", "/api/v1/auth/logout");
export const getMe = () => request("GET", "/api/v1/auth/me");
export const getSession = (id) => request("GET", sessionUrl(id));
export const getStatus = (id) => request("GET", sessionUrl(id, "/status"));
export const getTranscript = (id) => request("GET", sessionUrl(id, "/transcript.json"));
export const cancelSession = (id) => request("POST", sessionUrl(id, "/cancel"));
export const retrySession = (id) => request("POST", sessionUrl(id, "/retry"));
export const deleteSession = (id) => request("DELETE", sessionUrl(id));

export function getSessions(cursor) {
  const query = cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
  return request("GET", `/api/v1/sessions${query}`);
}

async function enter(how, email, password) {
  const body = JSON.stringify({ email, password });
  const headers = { "Content-Type": "application/json" };
  return answerOf(await send(`/api/v1/auth/${how}`, { method: "POST", headers, body }));
}

async function request(method, url) {
  try {
    return await answerOf(await send(url, { method }));
  } catch (problem) {
    if (problem.status === 401) signedOut();
    throw problem;
  }
}

async function send(url, options) {
  try {
    return await fetch(url, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch {
    throw new Problem(0, "unreachable", UNREACHABLE);
  }
}

async function answerOf(response) {
  const text = await response.text().catch(() => "");
  if (!response.ok) throw problemOf(response.status, text);
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem(response.status, "unexpected", "The server sent an answer this page does not understand.");
  }
}

// RFC 9457; something in front of the server may answer otherwise.
function problemOf(status, text) {
  try {
    const { code, detail } = JSON.parse(text);
    if (typeof detail === "string" && detail) return new Problem(status, code, detail);
  } catch {
    // Not a problem document.
  }
  const detail = status >= 500
    ? "The server is not available right now. Please try again in a moment."
    : `The server refused this (${status}).`;
  return new Problem(status, "unknown", detail);
}

// Uploads one recording. `onProgress(sent, total)` in bytes, the last time with sent === total.
// `key` names this upload: sent again after a lost answer, it makes no second session.
// Returns { done, stop }: a promise of the session, and a function that gives up.
export function upload(file, title, key, onProgress) {
  const sending = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    sending.open("POST", "/api/v1/sessions");
    sending.setRequestHeader("Accept", "application/json");
    sending.setRequestHeader("Idempotency-Key", key);
    sending.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    sending.upload.onload = (event) => onProgress(event.loaded, event.loaded);
    sending.onload = () => {
      if (sending.status === 201) {
        resolve(JSON.parse(sending.responseText));
        return;
      }
      if (sending.status === 401) signedOut();
      reject(problemOf(sending.status, sending.responseText));
    };
    sending.onerror = () => reject(new Problem(0, "unreachable",
      "The upload broke off. Check the connection, and that the file is still there, then try again."));
    sending.onabort = () => reject(new Problem(0, "stopped", "The upload was stopped."));
    const form = new FormData();
    if (title) form.append("title", title);
    form.append("file", file);
    sending.send(form);
  });
  return { done, stop: () => sending.abort() };
}
