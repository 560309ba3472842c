import { afterFailure } from "./backoff";
import { randomClientId } from "./clientId";
import type { Connection, Dispose, Followed, StatusProblem } from "./model";
import type { Ending, News, Signal } from "./news";
import { eventSourceOf, type StatusOptions, usesTickets } from "./options";
import { StatusPolling } from "./polling";
import { type Punctuality, punctuality } from "./punctuality";
import { problem } from "./request";
import { StatusStream } from "./stream";
import type { Topic } from "./topic";

/** A stream that has not said hello within this time is doubted: polls begin beside it. */
const HELLO_MS = 5000;
/** Heartbeats that may be missed before a stream is taken for dead. */
const HEARTBEATS = 2.5;
/** After so many failed attempts in a row it is polled. */
const MOST_FAILURES = 3;
/** While it is polled the stream is tried again so often; also the longest wait between attempts. */
const STREAM_RETRY_MS = 30_000;
const FIRST_RETRY_MS = 1000;
/** A server that restarts is given so long; its clients come back spread over it. */
const RESTART_MS = 10_000;
/** A stream that lived for less has failed. */
const SETTLED_MS = 10_000;
/** Polling stops when nobody has looked for so long. */
const UNSEEN_MS = 60_000;

/** Whom one follows for. */
export interface Follower<State extends Followed> {
  readonly known: () => State;
  readonly hear: (signals: readonly Signal[]) => void;
  /** Nothing more will come. */
  readonly over: () => void;
  /** Nobody looks, and it would have to be polled. */
  readonly unseen: () => void;
  /** For how long nobody has looked, in milliseconds. */
  readonly hiddenMs: () => number;
}

/**
 * Follows a topic by stream, by polls while that does not work, and by both while that is in
 * doubt. It ends by itself when the topic is over or is refused, and by `stop`.
 */
export class Follow<State extends Followed> {
  readonly #topic: Topic<State>;
  readonly #options: StatusOptions;
  readonly #follower: Follower<State>;
  #clientId: string;
  #cursor: string;
  #closeStream: Dispose | null = null;
  #stopPolls: Dispose | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #punctuality: Punctuality = punctuality(0);
  #failures = 0;
  #heartbeatMs = 15_000;
  #heardAt = 0;
  #openedAt = 0;
  #live = false;
  #notBefore = 0;
  #away = false;

  constructor(
    topic: Topic<State>,
    options: StatusOptions,
    follower: Follower<State>,
    { cursor, clientId }: { readonly cursor: string; readonly clientId: string },
  ) {
    this.#topic = topic;
    this.#options = options;
    this.#follower = follower;
    this.#cursor = cursor;
    this.#clientId = clientId;
  }

  /** The id of the last event that a stream told. */
  get cursor(): string {
    return this.#cursor;
  }

  /** Something is heard at least so often, or this does not work; milliseconds. */
  get quietMs(): number {
    return HEARTBEATS * this.#heartbeatMs;
  }

  /** While it is polled the stream is tried again so often. */
  get #streamRetryMs(): number {
    return this.#options.streamRetryMs ?? STREAM_RETRY_MS;
  }

  start(): void {
    this.#open();
    this.#tell({ error: null });
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#endStream();
    this.#endPolls();
  }

  /** Begin again, as if nothing had failed. */
  restart(): void {
    this.stop();
    this.#failures = 0;
    this.#notBefore = 0;
    this.start();
  }

  /** Somebody looks again, or the network is back: what is known may be old. */
  wake(changed: boolean): void {
    const quietMs = Date.now() - Math.max(this.#heardAt, this.#openedAt);
    if (!changed && quietMs <= (this.#live ? this.#heartbeatMs : FIRST_RETRY_MS)) return;
    this.#endPolls();
    this.#poll();
    this.#open();
    this.#tell({ isStale: true });
  }

  #open(): void {
    this.#endStream();
    const EventSource = eventSourceOf(this.#options);
    if (!EventSource || (!this.#topic.sessionId && usesTickets(this.#options))) {
      this.#poll();
      return;
    }
    this.#openedAt = Date.now();
    this.#punctuality = punctuality(this.#openedAt);
    const start = { cursor: this.#cursor, clientId: this.#clientId };
    const stream = new StatusStream(this.#topic, this.#options, EventSource, start);
    this.#closeStream = stream.subscribe((news) => {
      this.#cursor = stream.cursor;
      this.#fromStream(news);
    });
    this.#after(HELLO_MS, () => {
      this.#poll();
      this.#tell();
      this.#after(this.#streamRetryMs - HELLO_MS, () => {
        this.#lost();
        this.#open();
      });
    });
  }

  #fromStream(news: News): void {
    const now = Date.now();
    if (news.type === "ended") {
      this.#ended(news.why);
    } else if (news.type === "hello") {
      this.#heartbeatMs = news.heartbeatMs;
      if (this.#punctuality.hello(news.serverTimeMs, now)) this.#trust();
      // One that came late was on its way, and not waiting to be asked for.
      const saidAt = now - this.#openedAt > HELLO_MS ? this.#openedAt : now;
      this.#heard({ clockOffsetMs: news.serverTimeMs - saidAt || 0 });
      this.#watch();
    } else {
      this.#watch();
      const onTime = this.#punctuality.heard(sentAt(news), now);
      if (this.#punctuality.lumpy) this.#lost(MOST_FAILURES);
      else if (onTime) this.#trust();
      this.#take(news);
    }
  }

  #fromPolls(news: News): void {
    if (news.type === "unanswered") {
      this.#away = true;
      this.#notBefore = Date.now() + news.retryAfterMs;
      this.#tell({ isStale: true, error: problem("unreachable") });
    } else if (news.type === "refused") {
      const deleted = news.problem.code === "not_found" && this.#heardAt > 0;
      this.#finish(deleted ? problem("gone") : news.problem);
    } else {
      // A server that is back will have streams again.
      if (this.#away && !this.#closeStream) this.#open();
      this.#away = false;
      this.#take(news);
    }
    if (this.#stopPolls && !this.#live && this.#follower.hiddenMs() > UNSEEN_MS) {
      this.#follower.unseen();
    }
  }

  /** Pass on what was heard, on whichever way. */
  #take(news: News): void {
    if (news.type === "gone" && !news.sessionId) {
      this.#finish(problem("gone"));
    } else if (news.type === "status" || news.type === "segments" || news.type === "gone") {
      this.#heard({}, news);
      if (news.type === "status" && news.last && this.#topic.sessionId) this.#finish(null);
    } else if (news.type === "alive") {
      this.#heard({});
    }
  }

  #heard(facts: Partial<Followed>, ...signals: Signal[]): void {
    this.#heardAt = Date.now();
    this.#tell({ lastEventAt: this.#heardAt, isStale: false, error: null, ...facts }, ...signals);
  }

  #tell(facts: Partial<Followed> = {}, ...signals: Signal[]): void {
    const connection: Connection = this.#live ? "live" : this.#stopPolls ? "polling" : "connecting";
    this.#follower.hear([...signals, { type: "facts", facts: { connection, ...facts } }]);
  }

  /** The stream works: it is enough. */
  #trust(): void {
    this.#live = true;
    this.#endPolls();
  }

  #watch(): void {
    this.#after(this.quietMs, () => {
      this.#poll();
      this.#lost();
    });
  }

  #ended(why: Ending): void {
    if (why === "replaced") {
      // Two would take each other's place for ever.
      this.#clientId = randomClientId();
      this.#poll();
      this.#lost(MOST_FAILURES);
    } else if (why === "restarting") {
      this.#lost(0);
      this.#openAfter(FIRST_RETRY_MS + Math.random() * (RESTART_MS - FIRST_RETRY_MS));
    } else {
      // A status code that the browser does not tell, the polls will hear.
      if (why === "refused" || why === "unauthorized") this.#poll();
      this.#lost();
    }
  }

  /** The stream broke, or is as good as broken; it is tried again, later with each time. */
  #lost(failures = 1): void {
    if (this.#live && Date.now() - this.#openedAt >= SETTLED_MS) this.#failures = 0;
    this.#failures += failures;
    this.#endStream();
    if (this.#failures < MOST_FAILURES) {
      this.#openAfter(afterFailure(this.#failures, FIRST_RETRY_MS, STREAM_RETRY_MS));
    } else {
      this.#poll();
      this.#openAfter(this.#streamRetryMs);
    }
    this.#tell();
  }

  #openAfter(waitMs: number): void {
    this.#after(waitMs, () => {
      const leftMs = this.#notBefore - Date.now();
      if (leftMs > 0) this.#openAfter(leftMs);
      else this.#open();
    });
  }

  /** One thing is awaited of the stream at a time. */
  #after(waitMs: number, act: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, waitMs);
  }

  #poll(): void {
    if (this.#stopPolls) return;
    const polling = new StatusPolling(this.#topic, this.#options, this.#follower.known);
    this.#stopPolls = polling.subscribe((news) => this.#fromPolls(news));
  }

  #endStream(): void {
    this.#closeStream?.();
    this.#closeStream = null;
    this.#live = false;
  }

  #endPolls(): void {
    this.#stopPolls?.();
    this.#stopPolls = null;
  }

  #finish(error: StatusProblem | null): void {
    this.stop();
    this.#tell({ connection: "closed", isStale: false, error });
    this.#follower.over();
  }
}

/** When the server sent it, in milliseconds; NaN when it does not say. */
function sentAt(news: News): number {
  if (news.type === "status") return Date.parse(news.message.timestamp);
  return news.type === "alive" ? (news.serverTimeMs ?? Number.NaN) : Number.NaN;
}
