import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type Dispose,
  retrySession,
  type SessionState,
  type StatusOptions,
  watchSession,
} from "../../src/status/index";
import {
  latest,
  look,
  message,
  pass,
  piece,
  type ScriptedServer,
  SESSION,
  ScriptedEventSource as Source,
  scripted,
  unscripted,
} from "./scripted";

const STATUS = `/api/v1/sessions/${SESSION}/status`;
const TRANSCRIPT = `/api/v1/sessions/${SESSION}/transcript.json`;
const ME = "/api/v1/auth/me";

let server: ScriptedServer;
let state: SessionState;
let dispose: Dispose;

async function follow(options: StatusOptions = {}): Promise<void> {
  dispose = watchSession(
    SESSION,
    (next) => {
      state = next;
    },
    options,
  );
  await pass(0);
}

/** Follows, and the stream is live. */
async function live(options: StatusOptions = {}): Promise<void> {
  await follow(options);
  Source.last.hello();
  await pass(20);
  expect(state.connection).toBe("live");
}

/** Nothing is left of what was followed. */
function expectNothingLeft(): void {
  expect(Source.open).toEqual([]);
  expect(server.open).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
}

beforeEach(() => {
  server = scripted();
  server.answers.set(STATUS, latest(1));
});

afterEach(async () => {
  dispose();
  await pass(0);
  expectNothingLeft();
  unscripted();
});

describe("the stream", () => {
  it("AC-2.1.1 opens one EventSource and is live after hello, with no other request", async () => {
    await follow();
    expect(state.connection).toBe("connecting");
    expect(Source.all).toHaveLength(1);
    expect(Source.last.url.pathname).toBe(`${STATUS}/stream`);
    Source.last.hello();
    await pass(20);
    expect(state.connection).toBe("live");
    expect(server.asked).toEqual([]);
  });

  it("passes each event on, and knows the server's clock", async () => {
    await follow();
    Source.last.hello({ server_time: new Date(Date.now() + 90_000).toISOString() });
    Source.last.status(message(5));
    await pass(20);
    expect(state.status).toEqual(message(5));
    expect(state.clockOffsetMs).toBe(90_000);
    expect(state.lastEventAt).toBe(Date.now() - 20);
  });

  it("AC-4.1.2 costs one request from its opening to the end of a session", async () => {
    await live();
    for (let id = 1; id <= 100; id += 1) {
      Source.last.status(message(id));
      await pass(5000);
    }
    Source.last.status(message(101, { status: "completed", progress: 100 }), "complete");
    await pass(120_000);
    expect(state.connection).toBe("closed");
    expect(state.error).toBeNull();
    expect(Source.all.length + server.asked.length).toBe(1);
    expectNothingLeft();
  });

  it.each(["complete", "failed", "cancelled"])(
    "ends with %s and is not opened again",
    async (end) => {
      await live();
      Source.last.status(message(9, { status: "failed" }), end);
      await pass(60_000);
      expect(state.connection).toBe("closed");
      expect(Source.all).toHaveLength(1);
      expectNothingLeft();
    },
  );

  it("goes on through a failure that a retry has overtaken", async () => {
    await live();
    Source.last.status(message(9, { status: "failed" }), "progress");
    await pass(20);
    expect(state.connection).toBe("live");
  });

  it.each(["idle", "lifetime", "restarting"])(
    "comes back after %s from where it was",
    async (end) => {
      await live();
      Source.last.status(message(7));
      await pass(20_000);
      Source.last.heartbeat();
      Source.last.say(end, { timestamp: "2026-01-15T10:30:00Z" });
      expect(Source.open).toEqual([]);
      await pass(1000);
      expect(Source.all).toHaveLength(2);
      expect(Source.last.url.searchParams.get("last_event_id")).toBe("7");
      Source.last.hello();
      await pass(20);
      expect(state.connection).toBe("live");
      expect(server.asked).toEqual([]);
    },
  );

  it("leaves a server that restarts time, and spreads its return", async () => {
    await live();
    vi.mocked(Math.random).mockReturnValue(0.5);
    Source.last.say("restarting", { timestamp: "2026-01-15T10:30:00Z" });
    await pass(5400);
    expect(Source.all).toHaveLength(1);
    await pass(200);
    expect(Source.all).toHaveLength(2);
    expect(server.asked).toEqual([]);
  });

  it("ends when the session is deleted", async () => {
    await live();
    Source.last.say("gone", { timestamp: "2026-01-15T10:30:00Z" });
    await pass(60_000);
    expect(state.error).toMatchObject({ code: "gone", final: true });
    expect(state.connection).toBe("closed");
    expectNothingLeft();
  });

  it("polls when its slot is taken over, and comes back later under another name", async () => {
    await live();
    const name = Source.last.url.searchParams.get("client_id");
    Source.last.say("replaced", { timestamp: "2026-01-15T10:30:00Z" });
    await pass(20);
    expect(state.connection).toBe("polling");
    await pass(29_000);
    expect(Source.all).toHaveLength(1);
    vi.mocked(Math.random).mockReturnValue(0.7);
    await pass(1000);
    expect(Source.all).toHaveLength(2);
    expect(Source.last.url.searchParams.get("client_id")).not.toBe(name);
  });

  it("ignores what it cannot read", async () => {
    await live();
    Source.last.status(message(3));
    Source.last.say("progress", "{broken");
    Source.last.say("surprise", {});
    await pass(20);
    expect(state.status?.id).toBe(3);
    expect(state.connection).toBe("live");
  });
});

describe("what is known", () => {
  it("is the same in whatever order it is told", async () => {
    await live({ segments: true });
    for (const id of [3, 1, 5, 2, 4]) Source.last.status(message(id, { segments: 5 }));
    for (const idx of [2, 0, 1, 4, 0, 3, 2]) Source.last.say("segment", piece(idx));
    await pass(20);
    expect(state.status?.id).toBe(5);
    expect(state.segments).toEqual([0, 1, 2, 3, 4].map(piece));
  });

  it("is not set back by a poll that was answered with older news", async () => {
    await follow();
    await pass(5020); // no hello: polls begin
    expect(state.status?.id).toBe(1);
    Source.last.status(message(8));
    server.answers.set(STATUS, latest(2));
    await pass(3000);
    expect(state.status?.id).toBe(8);
  });

  it("begins anew when the server does not know the place any more", async () => {
    await live({ segments: true });
    Source.last.say("segment", piece(0), "0-1");
    Source.last.say("segment", piece(1), "0-2");
    Source.last.status(message(900, { segments: 2 }));
    await pass(20);
    Source.last.say("reset", { reason: "cursor_unknown" });
    Source.last.say("segment", { ...piece(0), text: "other" }, "0-1");
    await pass(20);
    expect(state.segments).toHaveLength(2); // still shown
    Source.last.status(message(500, { segments: 1 }));
    await pass(20);
    expect(state.status?.id).toBe(500);
    expect(state.segments).toEqual([{ ...piece(0), text: "other" }]);
  });

  it("loses the text that a retry begins again", async () => {
    await live({ segments: true });
    for (const idx of [0, 1, 2]) Source.last.say("segment", piece(idx));
    Source.last.status(message(4, { segments: 3 }));
    Source.last.status(message(5, { attempt: 2, status: "queued", segments: 1 }));
    await pass(20);
    expect(state.segments).toEqual([piece(0)]);
  });

  it("tells the place in the queue, as streams say it and as polls do", async () => {
    await live();
    const waiting = { status: "queued", stage: "queued" } as const;
    const told = async (id: number, sentence: string) => {
      Source.last.status(message(id, { ...waiting, message: sentence }));
      await pass(20);
      return state.queuePosition;
    };
    expect(await told(1, "Waiting for its turn: 3 before it")).toBe(4);
    expect(await told(2, "Next in line")).toBe(1);
    expect(await told(3, "Waiting for a worker: none is running")).toBeNull();
    server.answers.set(STATUS, latest(3, { ...waiting, queue_position: 2 }));
    Source.last.refuse();
    await pass(20);
    expect(state.queuePosition).toBe(2);
  });

  it("is told at most once in a frame", async () => {
    const listener = vi.fn();
    dispose = watchSession(SESSION, listener, { segments: true });
    await pass(0);
    Source.last.hello();
    for (let idx = 0; idx < 500; idx += 1) Source.last.say("segment", piece(idx));
    await pass(20);
    expect(listener).toHaveBeenCalledTimes(2); // at once, and the frame
    expect(listener.mock.lastCall?.[0].segments).toHaveLength(500);
  });
});

describe("doubt", () => {
  it("polls beside a stream without hello after 5 s, until hello comes", async () => {
    await follow();
    await pass(4900);
    expect(server.asked).toEqual([]);
    await pass(200);
    expect(server.times(STATUS)).toBe(1);
    expect(state.connection).toBe("polling");
    expect(state.status?.id).toBe(1);
    expect(Source.open).toHaveLength(1);
    Source.last.hello();
    await pass(10_000);
    expect(state.connection).toBe("live");
    expect(server.times(STATUS)).toBe(1);
    expect(Source.all).toHaveLength(1);
  });

  it("is not live before hello, whatever else was said", async () => {
    await follow();
    Source.last.status(message(2, { timestamp: new Date().toISOString() }));
    await pass(20);
    expect(state.status?.id).toBe(2);
    expect(state.connection).toBe("connecting");
  });

  it("opens another stream when one has said nothing for 30 s", async () => {
    await follow();
    await pass(29_900);
    expect(Source.all).toHaveLength(1);
    await pass(200);
    expect(Source.all).toHaveLength(2);
    expect(Source.open).toHaveLength(1);
  });

  it("closes a stream that is silent for 2.5 heartbeats, polls, and tries again", async () => {
    await live();
    await pass(37_400);
    expect(Source.open).toHaveLength(1);
    await pass(200);
    expect(server.times(STATUS)).toBe(1);
    expect(state.connection).toBe("polling");
    await pass(1000);
    expect(Source.all).toHaveLength(2);
    Source.last.hello();
    await pass(10_000);
    expect(state.connection).toBe("live");
    expect(server.times(STATUS)).toBe(1);
  });

  it("takes heartbeats and the heartbeat's length from the server", async () => {
    await follow();
    Source.last.hello({ heartbeat_s: 2 });
    for (let beat = 0; beat < 10; beat += 1) {
      await pass(2000);
      Source.last.heartbeat();
    }
    expect(server.asked).toEqual([]);
    await pass(5100);
    expect(server.times(STATUS)).toBe(1);
  });

  it("polls when heartbeats arrive in lumps", async () => {
    await live();
    await pass(30_000);
    Source.last.heartbeat(Date.now() - 15_000);
    Source.last.heartbeat(Date.now());
    expect(Source.open).toHaveLength(1);
    await pass(30_000);
    Source.last.heartbeat(Date.now() - 15_000);
    await pass(20);
    expect(Source.open).toEqual([]);
    expect(state.connection).toBe("polling");
    await pass(29_900);
    expect(Source.all).toHaveLength(1);
    await pass(200);
    expect(Source.all).toHaveLength(2);
  });

  it("goes on polling beside a stream whose first lump comes late", async () => {
    await follow();
    const openedAt = Date.now();
    await pass(25_000);
    Source.last.hello({ server_time: new Date(openedAt).toISOString() });
    await pass(5000);
    expect(state.connection).toBe("polling");
    expect(server.times(STATUS)).toBeGreaterThan(7);
    Source.last.heartbeat(); // as soon as it was sent
    await pass(20);
    expect(state.connection).toBe("live");
    expect(state.clockOffsetMs).toBe(0);
  });

  it("knows a lump by its first events", async () => {
    await follow();
    const openedAt = Date.now();
    await pass(25_000);
    Source.last.hello({ server_time: new Date(openedAt).toISOString() });
    Source.last.heartbeat(openedAt + 14_000);
    await pass(20);
    expect(Source.open).toEqual([]);
    expect(state.connection).toBe("polling");
  });

  it("does not mind a clock that differs from the server's", async () => {
    await follow();
    const ahead = 3_600_000;
    Source.last.hello({ server_time: new Date(Date.now() + ahead).toISOString() });
    for (let beat = 0; beat < 5; beat += 1) {
      await pass(15_000);
      Source.last.heartbeat(Date.now() + ahead);
    }
    await pass(20);
    expect(state.connection).toBe("live");
    expect(Source.all).toHaveLength(1);
  });
});

describe("failure", () => {
  it("AC-2.1.3 AC-3.1.1 tries three times, waiting longer each time, then polls", async () => {
    await follow();
    Source.last.cut();
    await pass(900);
    expect(Source.all).toHaveLength(1);
    await pass(100);
    expect(Source.all).toHaveLength(2);
    Source.last.cut();
    await pass(1900);
    expect(Source.all).toHaveLength(2);
    await pass(100);
    expect(Source.all).toHaveLength(3);
    expect(server.asked).toEqual([]);
    expect(state.connection).toBe("connecting");
    Source.last.cut();
    await pass(20);
    expect(server.times(STATUS)).toBe(1);
    expect(state.connection).toBe("polling");
  });

  it("spreads its attempts", async () => {
    vi.mocked(Math.random).mockReturnValue(0.999);
    await follow();
    Source.last.cut();
    await pass(510);
    expect(Source.all).toHaveLength(2);
  });

  /** Three attempts have failed. */
  async function polling(options: StatusOptions = {}): Promise<void> {
    await follow(options);
    for (const waitMs of [1000, 2000, 0]) {
      Source.last.cut();
      await pass(waitMs);
    }
    await pass(20);
    expect(state.connection).toBe("polling");
  }

  it("AC-3.1.2 polls every 3 s, one question at a time", async () => {
    await polling();
    for (let polls = 1; polls <= 5; polls += 1) {
      expect(server.times(STATUS)).toBe(polls);
      await pass(3000);
    }
    server.answers.set(STATUS, "silence");
    await pass(4000);
    expect(server.open).toBe(1);
  });

  it("AC-3.1.3 tries the stream every 30 s meanwhile, and polls no more once it works", async () => {
    await polling();
    for (const streams of [4, 5]) {
      await pass(29_900);
      expect(Source.all).toHaveLength(streams - 1);
      await pass(100);
      expect(Source.all).toHaveLength(streams);
      if (streams === 4) Source.last.cut();
    }
    Source.last.hello();
    await pass(20);
    expect(state.connection).toBe("live");
    const asked = server.asked.length;
    await pass(14_000);
    expect(server.asked).toHaveLength(asked);
  });

  it("tries the stream as soon as a server that was away answers again", async () => {
    server.answers.set(STATUS, "unreachable");
    await polling();
    await pass(9000); // polls after 3 s and 6 s more
    server.answers.set(STATUS, latest(4));
    await pass(9900);
    expect(Source.all).toHaveLength(3);
    await pass(120);
    expect(state.status?.id).toBe(4);
    expect(Source.all).toHaveLength(4);
    Source.last.cut();
    await pass(3000);
    expect(Source.all).toHaveLength(4); // once
  });

  it("AC-3.1.4 says that it polls, and what is wrong when nothing answers", async () => {
    server.answers.set(STATUS, "unreachable");
    await polling();
    expect(state.error).toMatchObject({ code: "unreachable", final: false });
    expect(state.isStale).toBe(true);
    server.answers.set(STATUS, latest(4));
    await pass(15_000);
    expect(state.error).toBeNull();
    expect(state.isStale).toBe(false);
    expect(state.status?.id).toBe(4);
  });

  it("AC-3.1.5 has status, place, transcript and end by polls as by the stream", async () => {
    server.answers.set(STATUS, latest(1, { status: "queued", queue_position: 3 }));
    await polling({ segments: true });
    expect(state.queuePosition).toBe(3);
    server.answers.set(STATUS, latest(2, { segments: 2 }));
    server.answers.set(TRANSCRIPT, { body: { segments: [piece(0), piece(1)] } });
    await pass(3000);
    expect(state.segments).toEqual([piece(0), piece(1)]);
    await pass(3000);
    expect(server.times(TRANSCRIPT)).toBe(1);
    server.answers.set(STATUS, latest(3, { status: "completed", segments: 2 }));
    await pass(60_000);
    expect(state.status?.status).toBe("completed");
    expect(state.connection).toBe("closed");
    expectNothingLeft();
  });

  it("asks for what is new only, and takes 304 as a sign of life", async () => {
    server.answers.set(STATUS, { ...latest(1), headers: { ETag: 'W/"1-0"' } });
    await polling();
    server.answers.set(STATUS, { status: 304 });
    await pass(3000);
    expect(server.requests.at(-1)?.init.headers).toMatchObject({ "If-None-Match": 'W/"1-0"' });
    expect(state.error).toBeNull();
    expect(state.lastEventAt).toBe(Date.now() - 20);
  });

  it("gives a question up that is not answered", async () => {
    await polling();
    server.answers.set(STATUS, "silence");
    await pass(3000 + 9990);
    expect(state.error).toBeNull();
    await pass(30);
    expect(state.error?.code).toBe("unreachable");
    expect(server.open).toBe(0);
  });

  it("does not take short lives of a stream for success", async () => {
    await follow();
    for (const waitMs of [1000, 2000, 0]) {
      Source.last.hello();
      await pass(100);
      Source.last.cut();
      await pass(waitMs);
    }
    await pass(20);
    expect(state.connection).toBe("polling");
  });

  it("counts anew after a stream that lived", async () => {
    await follow();
    for (let life = 0; life < 5; life += 1) {
      Source.last.hello();
      await pass(10_000);
      Source.last.cut();
      await pass(1000);
    }
    expect(Source.all).toHaveLength(6);
    expect(server.asked).toEqual([]);
  });
});

describe("refusals, of which the browser tells no status", () => {
  it("401 asks for the account once, and is signed out", async () => {
    server.answers.set(STATUS, { status: 401 });
    server.answers.set(ME, { status: 401 });
    await follow();
    Source.last.refuse();
    await pass(60_000);
    expect(server.asked).toEqual([`GET ${STATUS}`, `GET ${ME}`]);
    expect(state.error).toMatchObject({ code: "signed_out", final: true });
    expect(state.connection).toBe("closed");
    expect(Source.all).toHaveLength(1);
    expectNothingLeft();
  });

  it("401 of the moment is tried again", async () => {
    let status = 401;
    server.answers.set(STATUS, () => (status === 401 ? { status } : latest(1)));
    server.answers.set(ME, { body: {} });
    await follow();
    Source.last.refuse();
    await pass(20);
    expect(state.connection).toBe("polling");
    status = 200;
    await pass(3000);
    expect(state.status?.id).toBe(1);
  });

  it.each([
    [403, "forbidden"],
    [404, "not_found"],
  ])("%i is final: %s", async (status, code) => {
    server.answers.set(STATUS, { status });
    await follow();
    Source.last.refuse();
    await pass(60_000);
    expect(state.error).toMatchObject({ code, final: true });
    expect(server.asked).toHaveLength(1);
    expectNothingLeft();
  });

  it("404 of a session that was seen says that it was deleted", async () => {
    await live();
    server.answers.set(STATUS, { status: 404 });
    Source.last.refuse();
    await pass(20);
    expect(state.error?.code).toBe("gone");
  });

  it("204 is final: the end had been seen", async () => {
    server.answers.set(STATUS, latest(9, { status: "completed" }));
    await follow();
    Source.last.refuse();
    await pass(60_000);
    expect(state.connection).toBe("closed");
    expect(state.error).toBeNull();
    expect(state.status?.status).toBe("completed");
    expect(Source.all.length + server.asked.length).toBe(2);
    expectNothingLeft();
  });

  it("429 of the stream is polled over, and tried again", async () => {
    await follow();
    for (const waitMs of [1000, 2000, 30_000]) {
      Source.last.refuse();
      await pass(20);
      expect(state.connection).toBe("polling");
      expect(state.error).toBeNull();
      await pass(waitMs);
    }
    expect(Source.all).toHaveLength(4);
    expect(server.times(STATUS)).toBeGreaterThan(10);
  });

  it.each([429, 503])("%i with Retry-After is waited for, by polls and stream", async (status) => {
    server.answers.set(STATUS, { status, headers: { "Retry-After": "20" } });
    await follow();
    Source.last.refuse();
    await pass(19_000);
    expect(server.times(STATUS)).toBe(1);
    expect(Source.all).toHaveLength(1);
    server.answers.set(STATUS, latest(1));
    await pass(1100);
    expect(server.times(STATUS)).toBe(2);
    expect(Source.all).toHaveLength(2);
  });

  it("asks who one is when the stream ends as unauthorized", async () => {
    await live();
    server.answers.set(STATUS, { status: 401 });
    server.answers.set(ME, { status: 401 });
    Source.last.say("unauthorized", { timestamp: "2026-01-15T10:30:00Z" });
    await pass(20);
    expect(state.error?.code).toBe("signed_out");
    expectNothingLeft();
  });
});

describe("a browser without EventSource", () => {
  it.each([undefined, null])(
    "AC-3.3.1 AC-3.3.2 AC-3.3.3 AC-3.3.4 AC-3.3.5 polls from the start, without complaint",
    async (option) => {
      if (option === undefined) vi.stubGlobal("EventSource", undefined);
      await follow(option === null ? { EventSource: null } : {});
      await pass(20);
      expect(state.connection).toBe("polling");
      expect(state.error).toBeNull();
      expect(state.status?.id).toBe(1);
      server.answers.set(STATUS, latest(2, { status: "completed" }));
      await pass(3000);
      expect(state.connection).toBe("closed");
      expect(state.error).toBeNull();
      expect(Source.all).toEqual([]);
    },
  );
});

describe("AC-2.1.6 the page", () => {
  it("is current within 2 s of its return after its stream died unseen", async () => {
    await live();
    look(false);
    vi.setSystemTime(Date.now() + 120_000); // frozen: no timer ran
    server.answers.set(STATUS, latest(50));
    look(true);
    await pass(40);
    expect(state.status?.id).toBe(50);
    expect(Source.open).toHaveLength(1);
    expect(Source.all).toHaveLength(2);
    Source.last.hello();
    await pass(20);
    expect(state.connection).toBe("live");
  });

  it("asks nothing when it was away for a moment", async () => {
    await live();
    look(false);
    await pass(10_000);
    look(true);
    await pass(20);
    expect(server.asked).toEqual([]);
    expect(Source.all).toHaveLength(1);
  });

  it("notices that the machine slept", async () => {
    await live();
    server.answers.set(STATUS, latest(50));
    vi.setSystemTime(Date.now() + 600_000);
    await pass(1100);
    expect(state.status?.id).toBe(50);
    expect(Source.all).toHaveLength(2);
  });

  it.each([
    ["online", () => window],
    ["resume", () => document],
  ] as const)("opens a new stream after %s", async (name, target) => {
    await live();
    server.answers.set(STATUS, latest(50));
    target().dispatchEvent(new Event(name));
    await pass(40);
    expect(state.status?.id).toBe(50);
    expect(Source.all).toHaveLength(2);
    expect(Source.open).toHaveLength(1);
  });

  it("says that what it shows may be old when the network goes", async () => {
    await live();
    window.dispatchEvent(new Event("offline"));
    await pass(20);
    expect(state.isStale).toBe(true);
    Source.last.heartbeat();
    await pass(20);
    expect(state.isStale).toBe(false);
  });

  it("lets go of everything when it is put away, and is current when it comes back", async () => {
    await live();
    Source.last.status(message(3));
    await pass(20);
    window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    expect(Source.open).toEqual([]);
    server.answers.set(STATUS, latest(50));
    window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    await pass(40);
    expect(state.status?.id).toBe(50);
    expect(Source.last.url.searchParams.get("last_event_id")).toBe("3");
  });

  it("polls no more once nobody has looked for a minute, and again when somebody does", async () => {
    vi.stubGlobal("EventSource", undefined);
    await follow();
    look(false);
    await pass(66_000);
    const asked = server.asked.length;
    await pass(300_000);
    expect(server.asked).toHaveLength(asked);
    server.answers.set(STATUS, latest(50));
    look(true);
    await pass(40);
    expect(state.status?.id).toBe(50);
  });
});

describe("tokens", () => {
  const TICKET = `POST ${STATUS}/ticket`;
  const headers = { Authorization: "Bearer secret" };

  it("opens each stream by a ticket of its own, and polls with the headers", async () => {
    let tickets = 0;
    server.answers.set(`${STATUS}/ticket`, () => ({ body: { ticket: `t${++tickets}` } }));
    await follow({ headers });
    await pass(20);
    expect(server.asked).toEqual([TICKET]);
    expect(Source.last.url.searchParams.get("ticket")).toBe("t1");
    Source.last.hello();
    Source.last.cut();
    await pass(1020);
    expect(Source.last.url.searchParams.get("ticket")).toBe("t2");
    expect(server.requests[0]?.init.headers).toMatchObject(headers);
  });

  it("opens nothing when it was left before the ticket came", async () => {
    let give: (ticket: string) => void = () => {};
    await follow({
      ticket: () =>
        new Promise((resolve) => {
          give = resolve;
        }),
    });
    dispose();
    give("late");
    await pass(20);
    expect(Source.all).toEqual([]);
  });

  it("finds out by a poll why there is no ticket", async () => {
    server.answers.set(`${STATUS}/ticket`, { status: 403 });
    server.answers.set(STATUS, { status: 403 });
    await follow({ headers: () => headers });
    await pass(40);
    expect(state.error?.code).toBe("forbidden");
  });

  it("asks another server, whose address is given", async () => {
    server.answers.set(`https://api.test${STATUS}`, latest(6));
    await follow({ baseUrl: "https://api.test" });
    expect(Source.last.url.href).toContain(`https://api.test${STATUS}/stream?`);
    Source.last.refuse();
    await pass(20);
    expect(state.status?.id).toBe(6);
  });
});

describe("AC-2.1.4 leaving", () => {
  it("shares one stream among all watchers of a page, and ends it with the last", async () => {
    const other = vi.fn();
    await live();
    const leave = watchSession(SESSION, other);
    expect(other).toHaveBeenCalledWith(expect.objectContaining({ connection: "live" }));
    leave();
    leave();
    Source.last.status(message(2));
    await pass(20);
    expect(state.status?.id).toBe(2);
    expect(Source.all).toHaveLength(1);
    dispose();
    expectNothingLeft();
  });

  it("keeps apart what is of different servers and viewers", async () => {
    const others = [{ baseUrl: "https://api.test" }, { viewer: "other" }, { segments: true }].map(
      (options) => watchSession(SESSION, () => {}, options),
    );
    await follow();
    expect(Source.open).toHaveLength(4);
    for (const leave of others) leave();
    expect(Source.open).toHaveLength(1);
  });

  it("tells nothing more once it was left", async () => {
    const listener = vi.fn();
    dispose = watchSession(SESSION, listener);
    await pass(0);
    Source.last.hello();
    dispose();
    expectNothingLeft();
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("leaves nothing behind before the stream was opened", async () => {
    dispose = watchSession(SESSION, () => {});
    dispose();
    await pass(60_000);
    expect(Source.all).toEqual([]);
  });

  it("leaves nothing behind while it waits to open the stream again", async () => {
    await live();
    Source.last.cut();
    dispose();
    await pass(60_000);
    expect(Source.all).toHaveLength(1);
  });

  it("leaves nothing behind while a question is open", async () => {
    server.answers.set(STATUS, "silence");
    await live();
    Source.last.refuse();
    await pass(20);
    expect(server.open).toBe(1);
    dispose();
    await pass(0);
    expectNothingLeft();
  });

  it("begins again when asked to, after the end too", async () => {
    await live();
    Source.last.status(message(9, { status: "failed" }), "failed");
    await pass(20);
    expect(state.connection).toBe("closed");
    retrySession(SESSION);
    await pass(20);
    expect(state.connection).toBe("connecting");
    expect(Source.last.url.searchParams.get("last_event_id")).toBe("9");
    Source.last.hello();
    Source.last.status(message(10, { attempt: 2, status: "queued", segments: 0 }));
    await pass(20);
    expect(state.connection).toBe("live");
    expect(state.status?.attempt).toBe(2);
  });
});
