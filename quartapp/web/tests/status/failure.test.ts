import { describe, expect, it, vi } from "vitest";
import type { StatusOptions } from "../../src/status/index";
import {
  expectNothingLeft,
  follow,
  followInEachTest,
  live,
  ME,
  STATUS,
  server,
  state,
  TRANSCRIPT,
} from "./followed";
import { latest, pass, piece, ScriptedEventSource as Source } from "./scripted";

followInEachTest();

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
