import type { Dispose, Followed, Segment, StatusMessage } from "./model";
import type { Ending, News, StatusSource } from "./news";
import { type EventSourceConstructor, type StatusOptions, usesTickets } from "./options";
import { requestTicket } from "./request";
import type { Topic } from "./topic";

const LAST = ["complete", "failed", "cancelled"];
const ENDINGS = ["idle", "lifetime", "restarting", "unauthorized", "replaced"] as const;

/** What a stream needs of a topic. */
type Streamed = Pick<Topic<Followed>, "streamPath" | "sessionId">;

/** Where a stream begins, and in whose place. */
export interface StreamStart {
  /** The id of the last event that was heard, on whichever stream. */
  readonly cursor: string;
  /** A new stream takes the slot of an open one of the same client. */
  readonly clientId: string;
}

/**
 * The stream of a topic over the browser's EventSource. A subscription is one connection: it is
 * not made again by itself, since whoever subscribes knows better when, and from where on.
 */
export class StatusStream implements StatusSource {
  readonly #topic: Streamed;
  readonly #options: StatusOptions;
  readonly #EventSource: EventSourceConstructor;
  readonly #start: StreamStart;
  #cursor: string;

  constructor(
    topic: Streamed,
    options: StatusOptions,
    EventSource: EventSourceConstructor,
    start: StreamStart,
  ) {
    this.#topic = topic;
    this.#options = options;
    this.#EventSource = EventSource;
    this.#start = start;
    this.#cursor = start.cursor;
  }

  /** The id of the last event heard. */
  get cursor(): string {
    return this.#cursor;
  }

  subscribe(listener: (news: News) => void): Dispose {
    let source: EventSource | null = null;
    let closed = false;
    const close = () => {
      closed = true;
      source?.close();
    };
    const tell = (news: News) => {
      if (closed) return;
      if (news.type === "ended") close();
      listener(news);
    };
    const open = (url: string) => {
      if (closed) return;
      source = this.#open(url, tell);
    };
    if (this.#topic.sessionId && usesTickets(this.#options)) {
      requestTicket(this.#options, this.#topic.sessionId)
        .then((ticket) => open(this.#url({ ticket })))
        .catch(() => tell({ type: "ended", why: "refused" }));
    } else {
      open(this.#url({}));
    }
    return close;
  }

  #url(more: Record<string, string>): string {
    const { cursor, clientId } = this.#start;
    const query = new URLSearchParams({ client_id: clientId, ...more });
    if (cursor) query.set("last_event_id", cursor);
    const path = (this.#options.baseUrl ?? "") + this.#topic.streamPath;
    return `${path}${path.includes("?") ? "&" : "?"}${query}`;
  }

  #open(url: string, tell: (news: News) => void): EventSource {
    const withCredentials = this.#options.withCredentials ?? false;
    const source = new this.#EventSource(url, { withCredentials });
    const on = <Data>(name: string, take: (data: Data) => void) => {
      source.addEventListener(name, (event: MessageEvent) => {
        const data = parsed(event.data);
        if (!data) return;
        if (event.lastEventId) this.#cursor = event.lastEventId;
        take(data as Data);
      });
    };
    on<{ server_time: string; heartbeat_s: number }>("hello", ({ server_time, heartbeat_s }) => {
      const heartbeatMs = 1000 * (heartbeat_s || 15);
      tell({ type: "hello", serverTimeMs: Date.parse(server_time), heartbeatMs });
    });
    on<{ timestamp: string }>("heartbeat", ({ timestamp }) => {
      tell({ type: "alive", serverTimeMs: Date.parse(timestamp) || null });
    });
    on<{ session_id?: string }>("gone", ({ session_id }) => {
      tell({ type: "gone", sessionId: session_id ?? null });
    });
    statusEvents(on, tell);
    for (const why of ENDINGS) on(why, () => tell({ type: "ended", why }));
    source.addEventListener("error", () => {
      const why: Ending = source.readyState === 2 ? "refused" : "failed";
      tell({ type: "ended", why });
    });
    return source;
  }
}

type On = <Data>(name: string, take: (data: Data) => void) => void;

/** After `reset` the transcript so far is held until the status it belongs to, to change at once. */
function statusEvents(on: On, tell: (news: News) => void): void {
  let held: Segment[] | null = null;
  const take = (message: StatusMessage, last: boolean) => {
    if (held) tell({ type: "segments", segments: held, anew: true });
    tell({ type: "status", message, last, ...(held && { anew: true }) });
    held = null;
  };
  on("reset", () => {
    held = [];
  });
  on<Segment>("segment", (segment) => {
    if (held) held.push(segment);
    else tell({ type: "segments", segments: [segment] });
  });
  on<StatusMessage>("progress", (message) => take(message, false));
  for (const name of LAST) on<StatusMessage>(name, (message) => take(message, true));
}

function parsed(data: string): object | null {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
