import { act, cleanup, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { StatusOptions } from "../../src/status/index";
import { useSessions, useTranscriptionStatusSSE } from "../../src/status/react";
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

let server: ScriptedServer;

beforeEach(() => {
  server = scripted();
  server.answers.set(`/api/v1/sessions/${SESSION}/status`, latest(1));
});

afterEach(async () => {
  cleanup();
  await pass(0);
  expect(Source.open).toEqual([]);
  expect(server.open).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
  unscripted();
});

const settle = (ms = 20) => act(() => pass(ms));

async function say(speak: () => void): Promise<void> {
  speak();
  await settle();
}

describe("useTranscriptionStatusSSE", () => {
  it("AC-2.1.1 AC-2.1.2 opens an EventSource; returns status, connection and error", async () => {
    const { result } = renderHook(() => useTranscriptionStatusSSE(SESSION, { segments: true }));
    expect(result.current).toMatchObject({ status: null, connection: "connecting", error: null });
    await settle();
    await say(() => {
      Source.last.hello();
      Source.last.say("segment", piece(0));
      Source.last.status(message(3, { segments: 1 }));
    });
    expect(result.current.connection).toBe("live");
    expect(result.current.status?.id).toBe(3);
    expect(result.current.segments).toEqual([piece(0)]);
    await say(() => Source.last.say("gone", {}));
    expect(result.current.connection).toBe("closed");
    expect(result.current.error?.code).toBe("gone");
  });

  it("AC-3.1.2 AC-3.1.3 asks, and tries the stream again, as often as it was told last", async () => {
    const path = `/api/v1/sessions/${SESSION}/status`;
    const { rerender } = renderHook(
      (more: StatusOptions) => useTranscriptionStatusSSE(SESSION, more),
      {
        initialProps: {},
      },
    );
    rerender({ pollMs: 500, streamRetryMs: 8000 });
    await settle();
    for (const waitMs of [1000, 2000, 0])
      await say(() => Source.last.refuse()).then(() => settle(waitMs));
    const [polls, streams] = [server.times(path), Source.all.length];
    await settle(7000);
    expect(server.times(path)).toBeGreaterThan(polls + 11);
    expect(Source.all).toHaveLength(streams);
    await settle(1100);
    expect(Source.all).toHaveLength(streams + 1);
  });

  it("AC-2.1.4 opens one stream under StrictMode's double mount, and leaves none", async () => {
    const { unmount } = renderHook(() => useTranscriptionStatusSSE(SESSION), {
      wrapper: StrictMode,
    });
    await settle();
    expect(Source.all).toHaveLength(1);
    unmount();
    expect(Source.open).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("follows another session when the id changes, and shows nothing of the last", async () => {
    const { result, rerender } = renderHook(({ id }) => useTranscriptionStatusSSE(id), {
      initialProps: { id: SESSION as string | null },
    });
    await settle();
    await say(() => Source.last.status(message(3)));
    const first = Source.last;
    rerender({ id: "another" });
    expect(result.current.status).toBeNull();
    await settle();
    expect(first.readyState).toBe(2);
    expect(Source.open).toHaveLength(1);
    expect(Source.last.url.pathname).toContain("/another/");
    rerender({ id: null });
    await settle();
    expect(Source.open).toEqual([]);
    expect(result.current.connection).toBe("closed");
  });

  it("keeps its stream however often it is rendered, with options made anew", async () => {
    const options = (): StatusOptions => ({ segments: true, headers: () => ({}) });
    const { result, rerender } = renderHook(() => useTranscriptionStatusSSE(SESSION, options()));
    await settle();
    const before = result.current;
    for (let times = 0; times < 5; times += 1) rerender();
    await settle();
    expect(Source.all).toHaveLength(1);
    expect(result.current).toBe(before);
  });

  it("asks with the headers and tickets of its last rendering", async () => {
    const options = (token: string): StatusOptions => ({
      headers: () => ({ Authorization: `Bearer ${token}` }),
      ticket: async () => `ticket of ${token}`,
    });
    const { rerender } = renderHook(
      ({ token }) => useTranscriptionStatusSSE(SESSION, options(token)),
      { initialProps: { token: "old" } },
    );
    rerender({ token: "new" });
    await settle();
    expect(Source.last.url.searchParams.get("ticket")).toBe("ticket of new");
    Source.last.refuse();
    await settle();
    expect(server.requests[0]?.init.headers).toMatchObject({ Authorization: "Bearer new" });
  });

  it("closes a stream that was to be opened again", async () => {
    const { unmount } = renderHook(() => useTranscriptionStatusSSE(SESSION));
    await settle();
    Source.last.cut();
    unmount();
    await settle(60_000);
    expect(Source.all).toHaveLength(1);
  });

  it("is shared by components, and follows again on retry", async () => {
    const first = renderHook(() => useTranscriptionStatusSSE(SESSION));
    const second = renderHook(() => useTranscriptionStatusSSE(SESSION));
    await settle();
    await say(() => Source.last.status(message(3, { status: "failed" }), "failed"));
    expect(second.result.current.connection).toBe("closed");
    first.unmount();
    act(() => second.result.current.retry());
    await settle();
    expect(Source.all).toHaveLength(2);
    expect(second.result.current.connection).toBe("connecting");
    expect(second.result.current.status?.id).toBe(3);
  });
});

describe("useSessions", () => {
  const of = (session_id: string, id: number) => message(id, { session_id });

  it("follows all sessions over one stream", async () => {
    const { result } = renderHook(() => useSessions(), { wrapper: StrictMode });
    await settle();
    expect(Source.all).toHaveLength(1);
    expect(Source.last.url.pathname).toBe("/api/v1/status/stream");
    await say(() => {
      Source.last.hello();
      Source.last.status(of("a", 1));
      Source.last.status(of("b", 2), "complete");
      Source.last.status(of("a", 3));
      Source.last.status(of("a", 2));
    });
    expect(result.current.connection).toBe("live");
    expect(result.current.statuses.get("a")?.id).toBe(3);
    expect(result.current.statuses.get("b")?.id).toBe(2);
    await say(() => Source.last.say("gone", { session_id: "a" }));
    expect(result.current.statuses.has("a")).toBe(false);
    expect(result.current.gone).toEqual(new Set(["a"]));
    expect(result.current.connection).toBe("live");
    await say(() => Source.last.status(of("a", 4))); // it may be seen again
    expect(result.current.gone.size).toBe(0);
  });

  const listed = (...sessions: ReturnType<typeof of>[]) => ({
    body: {
      sessions: sessions.map(({ session_id, ...session }) => ({ ...session, id: session_id })),
      next_cursor: null,
    },
  });
  const LIST = "/api/v1/sessions?limit=50";
  const answer = (status: ReturnType<typeof of>) =>
    server.answers.set(`/api/v1/sessions/${status.session_id}/status`, { body: status });

  it("polls the list, and the status of what has changed alone", async () => {
    vi.stubGlobal("EventSource", undefined);
    const old = of("old", 1);
    server.answers.set(LIST, listed(of("a", 1), of("b", 1), { ...old, status: "completed" }));
    answer(of("a", 1));
    answer(of("b", 1));
    const { result } = renderHook(() => useSessions());
    await settle();
    expect([...result.current.statuses.keys()]).toEqual(["a", "b"]);
    expect(server.asked).toHaveLength(3);
    server.answers.set(LIST, listed({ ...of("a", 2), status: "completed" }, of("b", 1)));
    answer({ ...of("a", 2), status: "completed" });
    await settle(3000);
    expect(result.current.statuses.get("a")?.status).toBe("completed");
    expect(server.asked).toHaveLength(5);
    server.answers.set(LIST, listed({ ...of("a", 2), status: "completed" }));
    server.answers.set("/api/v1/sessions/b/status", { status: 404 });
    await settle(3000);
    expect(result.current.gone).toEqual(new Set(["b"]));
    expect(result.current.connection).toBe("polling");
    server.answers.set(LIST, listed()); // what is over needs no question, wherever it is
    await settle(3000);
    expect(server.asked).toHaveLength(8);
  });

  it("polls the list where streams are opened by tickets, of which lists have none", async () => {
    server.answers.set(LIST, listed());
    const { result } = renderHook(() => useSessions({ headers: { Authorization: "Bearer t" } }));
    await settle();
    expect(server.asked).toEqual([`GET ${LIST}`]);
    expect(Source.all).toEqual([]);
    expect(result.current.connection).toBe("polling");
  });

  it("is signed out when the list's stream and account say so", async () => {
    server.answers.set(LIST, { status: 401 });
    server.answers.set("/api/v1/auth/me", { status: 401 });
    const { result } = renderHook(() => useSessions());
    await settle();
    await say(() => Source.last.refuse());
    expect(result.current.error?.code).toBe("signed_out");
    server.answers.set("/api/v1/auth/me", { body: {} });
    act(() => result.current.retry());
    await settle();
    expect(Source.all).toHaveLength(2);
  });
});
