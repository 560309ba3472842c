import { describe, expect, it, vi } from "vitest";
import { follow, followInEachTest, live, STATUS, server, state } from "./followed";
import { latest, look, message, pass, ScriptedEventSource as Source } from "./scripted";

followInEachTest();

describe("AC-3.3.1 AC-3.3.2 AC-3.3.3 AC-3.3.4 AC-3.3.5 a browser without EventSource", () => {
  it.each([undefined, null])("polls from the start, without complaint", async (option) => {
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
  });
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
