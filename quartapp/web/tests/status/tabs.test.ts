import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Dispose, SessionState, StatusOptions } from "../../src/status/index";
import { type Core, openTab, ScriptedChannel, ScriptedLocks } from "./browser";
import {
  latest,
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

class Tab {
  state: SessionState | undefined;
  readonly core: Core;
  readonly #options: StatusOptions;
  readonly #dispose: Dispose;

  constructor(core: Core, options: StatusOptions) {
    this.core = core;
    this.#options = options;
    this.#dispose = core.watchSession(
      SESSION,
      (state) => {
        this.state = state;
      },
      options,
    );
  }

  close(): void {
    this.#dispose();
  }

  retry(): void {
    this.core.retrySession(SESSION, this.#options);
  }
}

let server: ScriptedServer;
let locks: ScriptedLocks;
let tabs: Tab[];

async function tab(options: StatusOptions = {}): Promise<Tab> {
  const opened = new Tab(await openTab(), options);
  tabs.push(opened);
  await pass(20);
  return opened;
}

beforeEach(() => {
  server = scripted();
  server.answers.set(STATUS, latest(1));
  locks = new ScriptedLocks();
  tabs = [];
  vi.stubGlobal("BroadcastChannel", ScriptedChannel);
  vi.spyOn(window, "navigator", "get").mockReturnValue({ locks } as unknown as Navigator);
  localStorage.clear();
  ScriptedChannel.delayMs = 0;
});

afterEach(async () => {
  for (const each of tabs) each.close();
  await pass(0);
  expect(Source.open).toEqual([]);
  expect(server.open).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
  expect(locks.names).toEqual([]);
  expect(ScriptedChannel.all.size).toBe(0);
  unscripted();
});

describe("several tabs of a browser", () => {
  it("have one stream, and all hear what it tells", async () => {
    const four = [await tab(), await tab(), await tab(), await tab()];
    Source.last.hello();
    Source.last.status(message(7));
    await pass(20);
    for (const { state } of four) {
      expect(state?.connection).toBe("live");
      expect(state?.status).toEqual(message(7));
    }
    expect(Source.all).toHaveLength(1);
    expect(server.asked).toEqual([]);
  });

  it("tell a tab that is opened later what is known", async () => {
    await tab({ segments: true });
    Source.last.hello({ server_time: new Date(Date.now() + 5000).toISOString() });
    for (const idx of [0, 1, 2]) Source.last.say("segment", piece(idx));
    Source.last.status(message(7, { segments: 3 }));
    await pass(2000);
    const late = await tab({ segments: true });
    expect(late.state).toEqual(tabs[0]?.state);
    expect(late.state?.segments).toHaveLength(3);
    expect(Source.all).toHaveLength(1);
  });

  it("go on without a gap when the one with the stream is closed", async () => {
    const first = await tab();
    const second = await tab();
    const third = await tab();
    Source.last.hello();
    Source.last.status(message(7));
    const clientId = Source.last.url.searchParams.get("client_id");
    first.close();
    await pass(20);
    expect(Source.all).toHaveLength(2);
    expect(Source.open).toHaveLength(1);
    expect(Source.last.url.searchParams.get("last_event_id")).toBe("7");
    expect(Source.last.url.searchParams.get("client_id")).toBe(clientId);
    Source.last.hello();
    Source.last.status(message(8));
    await pass(20);
    expect(second.state?.status?.id).toBe(8);
    expect(third.state?.status?.id).toBe(8);
    expect(server.asked).toEqual([]);
  });

  it("share polls as they share the stream", async () => {
    vi.stubGlobal("EventSource", undefined);
    const first = await tab();
    const second = await tab();
    await pass(6000);
    expect(server.times(STATUS)).toBe(3);
    expect(first.state?.connection).toBe("polling");
    expect(second.state?.connection).toBe("polling");
    expect(second.state?.status?.id).toBe(1);
  });

  it("are all told of the end, and none looks again", async () => {
    const both = [await tab(), await tab()];
    Source.last.hello();
    Source.last.status(message(9, { status: "completed" }), "complete");
    await pass(5000);
    for (const { state } of both) expect(state?.connection).toBe("closed");
    expect(Source.all).toHaveLength(1);
    expect(locks.names).toEqual([]);
  });

  it("stay at the end while a new one looks for itself", async () => {
    const first = await tab();
    Source.last.hello();
    Source.last.status(message(9, { status: "completed" }), "complete");
    await pass(1000);
    const second = await tab();
    expect(second.state?.connection).toBe("connecting");
    expect(first.state?.connection).toBe("closed");
    Source.last.hello();
    Source.last.status(message(9, { status: "completed" }), "complete");
    await pass(20);
    expect(second.state?.connection).toBe("closed");
    expect(Source.all).toHaveLength(2);
  });

  it("do not look again when the lead is free before they hear of the end", async () => {
    await tab();
    const second = await tab();
    Source.last.hello();
    await pass(20);
    ScriptedChannel.delayMs = 100;
    Source.last.status(message(9, { status: "completed" }), "complete");
    await pass(5000);
    expect(second.state?.connection).toBe("closed");
    expect(Source.all).toHaveLength(1);
  });

  it("follow again together when one of them is asked to", async () => {
    const first = await tab();
    const second = await tab();
    Source.last.hello();
    Source.last.status(message(9, { status: "failed" }), "failed");
    await pass(5000);
    second.retry();
    await pass(20);
    expect(first.state?.connection).toBe("connecting");
    Source.last.hello();
    Source.last.status(message(10, { attempt: 2 }));
    await pass(20);
    for (const { state } of [first, second]) {
      expect(state?.connection).toBe("live");
      expect(state?.status?.attempt).toBe(2);
    }
    expect(Source.all).toHaveLength(2);
  });

  it("have the stream opened anew when a tab without it is asked to retry", async () => {
    await tab();
    const second = await tab();
    second.retry();
    await pass(20);
    expect(Source.all).toHaveLength(2);
    expect(Source.open).toHaveLength(1);
  });

  it("do not wait for one that stands still", async () => {
    const first = await tab();
    Source.last.hello();
    const second = await tab();
    for (const channel of ScriptedChannel.all) channel.stuck = true;
    const third = await tab(); // no answer
    await pass(1000);
    expect(Source.all).toHaveLength(2);
    Source.last.hello();
    Source.last.status(message(5));
    await pass(20);
    expect(third.state?.status?.id).toBe(5);
    expect(third.state?.connection).toBe("live");
    expect(second.state?.status).toBeNull();
    await pass(46_000); // heard nothing for longer than the first has promised
    expect(Source.all.length).toBeGreaterThan(2);
    Source.last.hello();
    for (const channel of ScriptedChannel.all) channel.stuck = false;
    first.close();
    await pass(20);
  });

  it("return to the one stream once its tab speaks again", async () => {
    await tab();
    const leading = Source.last;
    leading.hello();
    for (const channel of ScriptedChannel.all) channel.stuck = true;
    const second = await tab();
    await pass(1000);
    expect(Source.open).toHaveLength(2);
    for (const channel of ScriptedChannel.all) channel.stuck = false;
    leading.status(message(4));
    await pass(20);
    expect(Source.open).toEqual([leading]);
    expect(second.state?.status?.id).toBe(4);
  });

  it("hand the lead on when the one that has it is put away", async () => {
    await tab();
    await tab();
    Source.last.hello();
    Source.last.status(message(3));
    await pass(20);
    const first = Source.last;
    // One document stands for both tabs: both let go, and one of them leads again.
    window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    expect(first.readyState).toBe(2);
    window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    await pass(1020);
    expect(Source.open).toHaveLength(1);
    expect(Source.last.url.searchParams.get("last_event_id")).toBe("3");
  });

  it.each([
    ["of different viewers", { viewer: "a" }, { viewer: "b" }],
    ["of different servers", {}, { baseUrl: "https://api.test" }],
    ["that ask not to share", { shareTabs: false }, { shareTabs: false }],
    ["that bring tokens", { ticket: async () => "t" }, { ticket: async () => "t" }],
  ] satisfies [string, StatusOptions, StatusOptions][])(
    "share nothing when they are %s",
    async (_, one, other) => {
      await tab(one);
      await tab(other);
      expect(Source.open).toHaveLength(2);
    },
  );

  it("follow each by itself in a browser without locks", async () => {
    vi.spyOn(window, "navigator", "get").mockReturnValue({} as Navigator);
    await tab();
    await tab();
    expect(Source.open).toHaveLength(2);
    const [one, other] = Source.open.map(({ url }) => url.searchParams.get("client_id"));
    expect(one).toBeTruthy();
    expect(other).toBeTruthy();
  });
});
