import createClient from "openapi-fetch";
import { Problem, problemOf, unreachable } from "./problem";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** The API of this site, by the cookie. Use with `answered`. */
export const api = createClient<paths>({ baseUrl: location.origin });

interface Answer<Data> {
  readonly data?: Data;
  readonly error?: unknown;
  readonly response: Response;
}

/** What the server answered. Throws `Problem` for a refusal, and when no answer came. */
export async function answered<Data>(call: Promise<Answer<Data>>): Promise<Data> {
  const { data, error, response } = await call.catch((reason: unknown) => {
    throw isAbort(reason) ? reason : unreachable();
  });
  if (!response.ok) {
    throw problemOf(response.status, error, response.headers.get("Retry-After"));
  }
  return data as Data;
}

/** Whether an error says that nobody is signed in (any more). */
export function isSignedOut(error: unknown): boolean {
  return error instanceof Problem && error.status === 401 && error.code !== "wrong_credentials";
}

function isAbort(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "AbortError";
}
