import type { Schemas } from "../api/client";
import { Problem, problemOf, unreachable } from "../api/problem";

export type Session = Schemas["SessionBody"];

/** What one upload sends. */
export interface UploadRequest {
  readonly file: File;
  /** Empty: the server takes the file's name. */
  readonly title: string;
  readonly language: string | null;
  readonly patientId: string | null;
  /** One per file, however often it is sent: so that nothing is made twice. */
  readonly idempotencyKey: string;
}

/** An upload on its way. `done` fails with a `Problem`, whose code is `stopped` after `stop`. */
export interface Transfer {
  readonly done: Promise<Session>;
  stop(): void;
}

/** Told how much of the body has left this machine. */
export type OnSent = (sentBytes: number, totalBytes: number) => void;

/**
 * Upload a recording. By XMLHttpRequest, since `fetch` tells nothing of a body on its way.
 */
export function transfer(upload: UploadRequest, onSent: OnSent): Transfer {
  const request = new XMLHttpRequest();
  const done = new Promise<Session>((resolve, reject) => {
    request.upload.onprogress = (event) => onSent(event.loaded, event.total);
    request.onload = () => settle(request, resolve, reject);
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new Problem(0, "stopped", "The upload was stopped."));
  });
  request.open("POST", "/api/v1/sessions");
  request.setRequestHeader("Idempotency-Key", upload.idempotencyKey);
  request.setRequestHeader("Accept", "application/json");
  request.send(formOf(upload));
  return { done, stop: () => request.abort() };
}

/** Fields before the file, so that a refusal of them need not wait for it. */
function formOf({ file, title, language, patientId }: UploadRequest): FormData {
  const form = new FormData();
  if (title) form.set("title", title);
  if (language) form.set("language", language);
  if (patientId) form.set("patient_id", patientId);
  form.set("file", file);
  return form;
}

function settle(
  request: XMLHttpRequest,
  resolve: (session: Session) => void,
  reject: (problem: Problem) => void,
): void {
  const body = parsed(request.responseText);
  if (request.status === 201 && body) resolve(body as Session);
  else reject(problemOf(request.status, body, request.getResponseHeader("Retry-After")));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null; // an answer of something in between, such as a proxy
  }
}
