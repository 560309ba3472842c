import { vi } from "vitest";
import type { StatusMessage } from "../../src/status/model";

export const SESSION = "8f6a1ea6-c5f7-4824-8adb-b9b9a3fa0fa7";
export const START_MS = Date.parse("2026-01-15T10:30:00Z");

/** An EventSource that does what the test says. */
export class ScriptedEventSource extends EventTarget {
  static all: ScriptedEventSource[] = [];

  static get last(): ScriptedEventSource {
    const last = ScriptedEventSource.all.at(-1);
    if (!last) throw new Error("no stream was opened");
    return last;
  }

  static get open(): ScriptedEventSource[] {
    return ScriptedEventSource.all.filter((source) => source.readyState !== 2);
  }

  readonly url: URL;
  readyState = 0;
  #lastEventId = "";

  constructor(url: string) {
    super();
    this.url = new URL(url, "http://quartapp.test");
    ScriptedEventSource.all.push(this);
  }

  close(): void {
    this.readyState = 2;
  }

  say(name: string, data: unknown, id?: string): void {
    if (this.readyState === 2) return;
    this.readyState = 1;
    this.#lastEventId = id ?? this.#lastEventId;
    const text = typeof data === "string" ? data : JSON.stringify(data);
    this.dispatchEvent(new MessageEvent(name, { data: text, lastEventId: this.#lastEventId }));
  }

  hello(more: object = {}): void {
    const server_time = new Date().toISOString();
    this.say("hello", { server_time, heartbeat_s: 15, stream_id: "1", ...more });
  }

  heartbeat(at = Date.now()): void {
    this.say("heartbeat", { timestamp: new Date(at).toISOString(), worker_seen_at: null });
  }

  status(status: StatusMessage, name = "progress"): void {
    this.say(name, status, String(status.id));
  }

  /** The connection breaks; the browser would come back by itself. */
  cut(): void {
    if (this.readyState === 2) return;
    this.readyState = 0;
    this.dispatchEvent(new Event("error"));
  }

  /** The server answers with something else than a stream. */
  refuse(): void {
    this.readyState = 2;
    this.dispatchEvent(new Event("error"));
  }
}

interface Answer {
  readonly status?: number;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

/** The API as far as polls see it; asked by `fetch`. */
export class ScriptedServer {
  /** What was asked for, oldest first: method and path. */
  readonly asked: string[] = [];
  readonly requests: { readonly path: string; readonly init: RequestInit }[] = [];
  readonly answers = new Map<string, Answer | (() => Answer) | "silence" | "unreachable">();
  open = 0;

  readonly fetch: typeof fetch = async (input, init = {}) => {
    const path = String(input);
    this.asked.push(`${init.method ?? "GET"} ${path}`);
    this.requests.push({ path, init });
    const found = this.answers.get(path);
    const answer = typeof found === "function" ? found() : found;
    this.open += 1;
    try {
      if (answer === "silence") await aborted(init.signal);
      if (answer === "unreachable") throw new TypeError("Failed to fetch");
      await Promise.resolve();
      const { status = 200, body, headers } = (answer as Answer) ?? { status: 404 };
      return new Response(status === 304 ? null : JSON.stringify(body ?? {}), {
        status,
        headers: headers ?? {},
      });
    } finally {
      this.open -= 1;
    }
  };

  times(path: string): number {
    return this.asked.filter((line) => line.endsWith(` ${path}`)).length;
  }
}

async function aborted(signal: AbortSignal | null | undefined): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
  });
}

/** A status event; `id` counts from 1. */
export function message(id: number, more: Partial<StatusMessage> = {}): StatusMessage {
  return {
    session_id: SESSION,
    id,
    prev_id: id - 1,
    attempt: 1,
    status: "processing",
    stage: "transcribing",
    progress: id,
    progress_kind: "measured",
    message: `Transcribing… ${id}`,
    timestamp: new Date(START_MS - 60_000 + id).toISOString(),
    duration_processed: id,
    duration_total: 600,
    estimated_completion: null,
    processing_speed: 2,
    segments: 0,
    error: null,
    ...more,
  };
}

export const piece = (idx: number) => ({
  idx,
  start_s: idx,
  end_s: idx + 1,
  text: `piece ${idx}`,
  words: [],
});

/** The latest status as the status route answers it. */
export const latest = (id: number, more: object = {}) => ({
  body: { ...message(id), queue_position: null, worker_seen_at: null, ...more },
});

/** A stopped clock, full waits, and browsers' parts that do what the test says. */
export function scripted(): ScriptedServer {
  vi.useFakeTimers({
    now: START_MS,
    toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"],
  });
  vi.spyOn(Math, "random").mockReturnValue(0);
  const server = new ScriptedServer();
  ScriptedEventSource.all = [];
  vi.stubGlobal("EventSource", ScriptedEventSource);
  vi.stubGlobal("fetch", server.fetch);
  return server;
}

export function unscripted(): void {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
}

export const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** The page is looked at, or not. */
export function look(visible: boolean): void {
  vi.spyOn(document, "hidden", "get").mockReturnValue(!visible);
  document.dispatchEvent(new Event("visibilitychange"));
}
