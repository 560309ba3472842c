import { describe, expect, it, vi } from "vitest";
import { retrySession, watchSession } from "../../src/status/index";
import {
  dispose,
  expectNothingLeft,
  follow,
  followInEachTest,
  live,
  STATUS,
  server,
  state,
  watchedBy,
} from "./followed";
import { latest, message, pass, SESSION, ScriptedEventSource as Source } from "./scripted";

followInEachTest();

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
    watchedBy(listener);
    await pass(0);
    Source.last.hello();
    dispose();
    expectNothingLeft();
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("leaves nothing behind before the stream was opened", async () => {
    watchedBy(() => {});
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
