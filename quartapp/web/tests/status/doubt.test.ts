import { describe, expect, it } from "vitest";
import { follow, followInEachTest, live, STATUS, server, state } from "./followed";
import { message, pass, ScriptedEventSource as Source } from "./scripted";

followInEachTest();

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
