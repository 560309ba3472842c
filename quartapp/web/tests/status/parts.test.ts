import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type EventSourceConstructor,
  type News,
  StatusPolling,
  StatusStream,
  sessionTopic,
} from "../../src/status/index";
import {
  latest,
  message,
  pass,
  type ScriptedServer,
  SESSION,
  ScriptedEventSource as Source,
  scripted,
  unscripted,
} from "./scripted";

const STATUS = `/api/v1/sessions/${SESSION}/status`;
const topic = sessionTopic(SESSION);
const EventSource = Source as unknown as EventSourceConstructor;

let server: ScriptedServer;

beforeEach(() => {
  server = scripted();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  unscripted();
});

describe("StatusStream", () => {
  function opened(cursor = "") {
    const stream = new StatusStream(topic, {}, EventSource, { cursor, clientId: "me" });
    const heard: News[] = [];
    return { stream, heard, dispose: stream.subscribe((news) => heard.push(news)) };
  }

  it("opens one connection, says what it hears, and knows where it is", () => {
    const { stream, heard, dispose } = opened("4");
    const query = Object.fromEntries(Source.last.url.searchParams);
    expect(query).toEqual({ client_id: "me", last_event_id: "4" });
    Source.last.hello();
    Source.last.status(message(5));
    Source.last.heartbeat();
    Source.last.status(message(6), "complete");
    expect(heard.map(({ type }) => type)).toEqual(["hello", "status", "alive", "status"]);
    expect(heard.map((news) => "last" in news && news.last)).toEqual([false, false, false, true]);
    expect(stream.cursor).toBe("6");
    dispose();
    expect(Source.open).toEqual([]);
  });

  it.each(["idle", "lifetime", "restarting", "unauthorized", "replaced"])(
    "is closed for good when the server ends it: %s",
    (why) => {
      const { heard } = opened();
      Source.last.say(why, { timestamp: "2026-01-15T10:30:00Z" });
      Source.last.cut();
      expect(heard).toEqual([{ type: "ended", why }]);
      expect(Source.last.readyState).toBe(2);
    },
  );

  it("leaves no connection to the browser to make again", () => {
    const { heard } = opened();
    Source.last.cut();
    expect(Source.open).toEqual([]);
    expect(heard).toEqual([{ type: "ended", why: "failed" }]);
  });
});

describe("StatusPolling", () => {
  it("asks until it is ended, and says what it hears", async () => {
    server.answers.set(STATUS, latest(1));
    const heard: News[] = [];
    const dispose = new StatusPolling(topic, { pollMs: 500 }).subscribe((news) => heard.push(news));
    await pass(1100);
    expect(server.times(STATUS)).toBe(3);
    expect(heard.map(({ type }) => type).slice(0, 2)).toEqual(["alive", "status"]);
    dispose();
    await pass(10_000);
    expect(server.times(STATUS)).toBe(3);
  });

  it("waits longer with each failure, and tells of each", async () => {
    server.answers.set(STATUS, "unreachable");
    const heard: News[] = [];
    const dispose = new StatusPolling(topic, {}).subscribe((news) => heard.push(news));
    for (const [waitMs, polls] of [
      [0, 1],
      [3000, 2],
      [6000, 3],
      [10_000, 4],
      [10_000, 5],
    ] as const) {
      await pass(waitMs);
      expect(server.times(STATUS)).toBe(polls);
    }
    expect(heard).toHaveLength(5);
    expect(new Set(heard.map(({ type }) => type))).toEqual(new Set(["unanswered"]));
    dispose();
  });

  it("says nothing after it was ended, though an answer was on its way", async () => {
    server.answers.set(STATUS, latest(1));
    const listener = vi.fn();
    const dispose = new StatusPolling(topic, {}).subscribe(listener);
    dispose();
    await pass(10);
    expect(listener).not.toHaveBeenCalled();
  });

  it("stops when it is refused", async () => {
    server.answers.set(STATUS, { status: 403 });
    const listener = vi.fn();
    new StatusPolling(topic, {}).subscribe(listener);
    await pass(60_000);
    expect(server.asked).toHaveLength(1);
    expect(listener).toHaveBeenCalledTimes(1);
  });
});
