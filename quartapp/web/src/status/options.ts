/** What a followed session or list needs from its surroundings; everything has a default. */
export interface StatusOptions {
  /** Where the API is, without a last slash, such as `https://api.example.org`; this page's origin. */
  readonly baseUrl?: string;
  /** What asks; the browser's. It may add what the API wants. */
  readonly fetch?: typeof fetch;
  /** What opens streams; the browser's. With null, as in a browser that has none, it polls. */
  readonly EventSource?: EventSourceConstructor | null;
  /**
   * Headers of every question, such as `Authorization`; a function is asked each time. With an
   * `Authorization` each stream of a session is opened by a ticket, asked for with these headers,
   * and lists, for which there are no tickets, are polled.
   */
  readonly headers?: Readonly<Record<string, string>> | (() => Readonly<Record<string, string>>);
  /** A ticket for one stream of that session, when it is not to be asked for with `headers`. */
  readonly ticket?: (sessionId: string) => Promise<string>;
  /** Send cookies to `baseUrl` though it is of another origin. */
  readonly withCredentials?: boolean;
  /** Follow the transcript too, as its segments appear. */
  readonly segments?: boolean;
  /** Milliseconds from the end of one poll to the next; 3000. */
  readonly pollMs?: number | undefined;
  /** Milliseconds until the stream is tried again while it is polled; 30000. */
  readonly streamRetryMs?: number | undefined;
  /**
   * Whether all tabs of this browser share one stream. By default they do when they are signed in
   * by cookie, so by the same one; not with `headers` or `ticket`.
   */
  readonly shareTabs?: boolean;
  /** Who looks: any text. Tabs share streams only with tabs of the same viewer. */
  readonly viewer?: string;
}

export type EventSourceConstructor = new (url: string, init?: EventSourceInit) => EventSource;

/** The browser's EventSource, or null where there is none. */
export function eventSourceOf(options: StatusOptions): EventSourceConstructor | null {
  if (options.EventSource !== undefined) return options.EventSource;
  return globalThis.EventSource ?? null;
}

/** The headers to send now. */
export function headersOf({ headers }: StatusOptions): Readonly<Record<string, string>> {
  return (typeof headers === "function" ? headers() : headers) ?? {};
}

/** Whether streams are opened by tickets rather than by cookie. */
export function usesTickets(options: StatusOptions): boolean {
  return Boolean(
    options.ticket || Object.keys(headersOf(options)).some((name) => /^authorization$/i.test(name)),
  );
}
