import { describe, expect, it, vi } from "vitest";
import {
  expectNothingLeft,
  follow,
  followInEachTest,
  live,
  STATUS,
  server,
  state,
  watchedBy,
} from "./followed";
import { latest, message, pass, piece, ScriptedEventSource as Source } from "./scripted";

followInEachTest();

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
    watchedBy(listener, { segments: true });
    await pass(0);
    Source.last.hello();
    for (let idx = 0; idx < 500; idx += 1) Source.last.say("segment", piece(idx));
    await pass(20);
    expect(listener).toHaveBeenCalledTimes(2); // at once, and the frame
    expect(listener.mock.lastCall?.[0].segments).toHaveLength(500);
  });
});
