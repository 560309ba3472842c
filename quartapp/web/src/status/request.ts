import type { StatusProblem } from "./model";
import { headersOf, type StatusOptions } from "./options";

/** A poll that is not answered within this time has failed. */
const ANSWER_MS = 10_000;

/** The sentences people read. */
export const PROBLEMS = {
  signed_out: "You are signed out. Please sign in again.",
  forbidden: "You may not see this recording.",
  not_found: "There is no such recording.",
  gone: "This recording has been deleted.",
  unreachable: "The server cannot be reached. It is tried again by itself.",
} as const satisfies Record<StatusProblem["code"], string>;

export function problem(code: StatusProblem["code"]): StatusProblem {
  return { code, message: PROBLEMS[code], final: code !== "unreachable" };
}

/** The server refused for good. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly problem: StatusProblem;

  constructor(code: StatusProblem["code"]) {
    super(PROBLEMS[code]);
    this.problem = problem(code);
  }
}

/** There was no answer, or none of use; 0 when the server named no time to wait. */
export class Unanswered extends Error {
  override readonly name = "Unanswered";
  readonly retryAfterMs: number;

  constructor(retryAfterMs = 0) {
    super(PROBLEMS.unreachable);
    this.retryAfterMs = retryAfterMs;
  }
}

export interface Answer {
  /** Undefined when it is the one that `etag` names. */
  readonly body: unknown;
  readonly etag: string | null;
  readonly serverTimeMs: number | null;
}

export type Ask = (path: string, etag?: string | null) => Promise<Answer>;

/** Questions to the API, ended by the signal. They throw Refused or Unanswered. */
export function asker(options: StatusOptions, signal?: AbortSignal): Ask {
  return async (path, etag) => {
    const headers = etag ? { "If-None-Match": etag } : {};
    const response = await send(options, path, { headers }, signal);
    if (response.status === 401) await checkSignedIn(options, signal);
    if (response.status !== 304) requireOk(response);
    return {
      body: response.status === 304 ? undefined : await json(response),
      etag: response.headers.get("ETag"),
      serverTimeMs: Date.parse(response.headers.get("Date") ?? "") || null,
    };
  };
}

/** A ticket for one stream of the session. */
export async function requestTicket(options: StatusOptions, sessionId: string): Promise<string> {
  if (options.ticket) return options.ticket(sessionId);
  const path = `/api/v1/sessions/${sessionId}/status/ticket`;
  const response = await send(options, path, { method: "POST" });
  requireOk(response);
  return ((await json(response)) as { ticket: string }).ticket;
}

/** One refusal may be of the moment; the account's own page decides. */
async function checkSignedIn(options: StatusOptions, signal?: AbortSignal): Promise<void> {
  const { status } = await send(options, "/api/v1/auth/me", {}, signal);
  if (status === 401 || status === 403) throw new Refused("signed_out");
}

function requireOk(response: Response): void {
  if (response.ok) return;
  if (response.status === 403) throw new Refused("forbidden");
  if (response.status === 404 || response.status === 410) throw new Refused("not_found");
  throw new Unanswered(1000 * (Number(response.headers.get("Retry-After")) || 0));
}

async function send(
  options: StatusOptions,
  path: string,
  init: RequestInit,
  signal?: AbortSignal,
): Promise<Response> {
  const ask = options.fetch ?? fetch;
  const ending = new AbortController();
  const end = () => ending.abort();
  const timer = setTimeout(end, ANSWER_MS);
  signal?.addEventListener("abort", end);
  try {
    return await ask((options.baseUrl ?? "") + path, {
      ...init,
      headers: { Accept: "application/json", ...headersOf(options), ...init.headers },
      credentials: options.withCredentials ? "include" : "same-origin",
      signal: ending.signal,
    });
  } catch {
    throw new Unanswered();
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    throw new Unanswered();
  }
}
