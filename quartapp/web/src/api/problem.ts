/** An answer other than the one asked for (RFC 9457), or none at all: then `status` is 0. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;
  readonly code: string;
  /** How long the server asks to wait, in milliseconds; null when it does not say. */
  readonly retryAfterMs: number | null;

  /** `message` is a sentence for people. */
  constructor(status: number, code: string, message: string, retryAfterMs: number | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

const UNSPOKEN = "The server gave an answer that cannot be read. Please try again.";

/** The problem that an answer's body and headers tell of. */
export function problemOf(status: number, body: unknown, retryAfter: string | null): Problem {
  const told = typeof body === "object" && body !== null ? body : {};
  const code = "code" in told && typeof told.code === "string" ? told.code : `http_${status}`;
  const detail = "detail" in told && typeof told.detail === "string" ? told.detail : UNSPOKEN;
  const seconds = Number(retryAfter);
  return new Problem(status, code, detail, retryAfter && seconds >= 0 ? seconds * 1000 : null);
}

/** No answer came: the network, or the server, is away. */
export function unreachable(): Problem {
  return new Problem(
    0,
    "unreachable",
    "The server cannot be reached. Check your connection, then try again.",
  );
}

/** Anything thrown, as a problem with a sentence for people. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem(0, "unexpected", "Something unexpected went wrong. Please reload the page.");
}

/** Whether the same request may succeed later: nothing was wrong with it. */
export function isTransient({ status }: Problem): boolean {
  return status === 0 || status === 408 || status === 429 || (status >= 500 && status !== 507);
}
