import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { configQuery } from "../../src/api/account";
import { StatusCard } from "../../src/pages/session/StatusCard";
import type { FollowedSession } from "../../src/pages/session/useFollowed";
import { message, session } from "./people";

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse("2026-01-15T10:30:00Z") });
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function followed(change: Partial<FollowedSession> = {}): FollowedSession {
  return {
    session: session(),
    message: message(),
    segments: [],
    isTextLoading: false,
    connection: "live",
    isStale: false,
    clockOffsetMs: 0,
    loss: null,
    decisionError: null,
    isDeciding: false,
    cancel: vi.fn(),
    retry: vi.fn(),
    ...change,
  };
}

function show(change: Partial<FollowedSession> = {}) {
  vi.stubGlobal("EventSource", class {});
  const client = new QueryClient();
  client.setQueryData(configQuery.queryKey, {
    version: "1",
    registration: "open",
    max_upload_bytes: 1,
    poll_interval_s: 3,
    stream_retry_s: 30,
  });
  const card = (state: FollowedSession) => (
    <QueryClientProvider client={client}>
      <StatusCard followed={state} />
    </QueryClientProvider>
  );
  const { rerender } = render(card(followed(change)));
  return (next: Partial<FollowedSession>) => rerender(card(followed(next)));
}

const part = (name: string) => document.querySelector(`[data-part="${name}"]`)?.textContent ?? "";

test("AC-2.2.1 AC-2.2.2 the bar and the sentence are those of the last message", () => {
  const showNext = show();
  const bar = screen.getByRole("progressbar", { name: "Transcription" });
  expect(bar.getAttribute("aria-valuenow")).toBe("75");
  expect(bar.getAttribute("aria-valuetext")).toBe("Transcribing, 75 %");
  expect(part("message")).toBe("Transcribing… 7:30 of 10:00");
  expect(bar.firstElementChild?.getAttribute("style")).toContain("translateX(-25%)");
  showNext({
    session: session({ progress: 99, stage: "finalizing" }),
    message: message({ progress: 99, message: "Saving the transcript" }),
  });
  expect(bar.getAttribute("aria-valuenow")).toBe("99");
  expect(part("message")).toBe("Saving the transcript");
});

test("AC-2.2.3 the time left counts down by the server's clock", () => {
  const showNext = show({ clockOffsetMs: 60_000 });
  expect(part("figures")).toMatch(/^About a minute left · finishes /);
  act(() => void vi.advanceTimersByTime(30_000));
  expect(part("figures")).toMatch(/^Less than a minute left/);
  showNext({ message: message({ estimated_completion: null }) });
  expect(part("figures").trim()).toBe("");
});

test.each([
  ["connecting", false, "○ Connecting…"],
  ["live", false, "● Live updates"],
  ["polling", false, "○ Checking every 3 s, reconnecting"],
  ["polling", true, "○ The server does not answer; trying again"],
] as const)("AC-2.2.4 AC-3.1.4 %s (stale: %s) is told as it is", (connection, isStale, words) => {
  show({ connection, isStale });
  expect(part("connection")).toBe(words);
});

test("AC-3.3.5 a browser without streams hears nothing of them", () => {
  const showNext = show();
  vi.stubGlobal("EventSource", undefined);
  showNext({ connection: "polling" });
  expect(part("connection")).toBe("● Updated every 3 s");
});

test("AC-2.3.2 the figures are those of the last message", () => {
  show();
  const figures = [...document.querySelectorAll(".statistics > div")].map(
    ({ textContent }) => textContent,
  );
  expect(figures[0]).toContain("7:30");
  expect(figures[0]).toContain("10:00");
  expect(figures[1]).toBe("Speed2.1 ×");
  expect(figures[2]).toBe("Segments42");
  expect(figures[3]).toContain("5:00");
});

test("AC-2.2.5 AC-2.3.4 a failure says why and what to do, and can be tried again", () => {
  const error = { code: "audio_missing", message: "The recording is no longer stored." };
  const retry = vi.fn();
  const failed = session({ status: "failed", error });
  const showNext = show({ session: failed, retry });
  expect(screen.getByText("The recording is no longer stored.")).toBeTruthy();
  expect(screen.getByText("Upload the recording again.")).toBeTruthy();
  fireEvent.click(screen.getByRole("button", { name: "Try again" }));
  expect(retry).toHaveBeenCalledOnce();
  expect(part("connection")).toBe("");
  showNext({ session: { ...failed, has_audio: false } });
  expect(screen.queryByRole("button", { name: "Try again" })).toBeNull();
});

test("while it goes on it can be cancelled, and afterwards not", () => {
  const cancel = vi.fn();
  const showNext = show({ cancel });
  fireEvent.click(screen.getByRole("button", { name: "Cancel transcription" }));
  expect(cancel).toHaveBeenCalledOnce();
  showNext({ session: session({ status: "completed", progress: 100 }) });
  expect(screen.queryAllByRole("button")).toEqual([]);
});
