import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, renderHook } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { reasonsToRenew, useRenewal } from "../../src/pages/recordings/useRenewal";
import { message, session } from "./people";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

const listed = (...sessions: ReturnType<typeof session>[]) =>
  new Map(sessions.map((each) => [each.id, each]));
const told = (...messages: ReturnType<typeof message>[]) =>
  new Map(messages.map((each) => [each.session_id, each]));

test("a percentage is no reason to fetch the list, nor is an end that moves nobody", () => {
  const running = session({ id: "a", progress: 10 });
  expect(reasonsToRenew(listed(running), told(message({ session_id: "a" })), null)).toEqual([]);
  const over = message({ session_id: "a", status: "completed" });
  expect(reasonsToRenew(listed(running), told(over), null)).toEqual([]);
});

test("an end that moves those who wait is one, and a session that is not listed", () => {
  const list = listed(session({ id: "a" }), session({ id: "b", status: "queued" }));
  const over = message({ session_id: "a", status: "completed" });
  const unknown = message({ session_id: "c", status: "queued" });
  expect(reasonsToRenew(list, told(over, unknown), null)).toEqual(["a completed", "c queued"]);
});

test("what a filter leaves out is none until it passes", () => {
  const other = message({ session_id: "c", status: "processing" });
  expect(reasonsToRenew(listed(), told(other), "failed")).toEqual([]);
  const failed = { ...other, status: "failed" } as const;
  expect(reasonsToRenew(listed(), told(failed), "failed")).toEqual(["c failed"]);
});

test("the list is fetched once for each reason, and at most every five seconds", () => {
  const client = new QueryClient();
  const fetched = vi.spyOn(client, "invalidateQueries");
  const wrapper = ({ children }: { children: ReactNode }) => (
    <QueryClientProvider client={client}>{children}</QueryClientProvider>
  );
  const { rerender } = renderHook(useRenewal, { wrapper, initialProps: ["a queued"] });
  vi.advanceTimersByTime(1000);
  expect(fetched).toHaveBeenCalledTimes(1);
  rerender(["a queued"]);
  vi.advanceTimersByTime(10_000);
  expect(fetched).toHaveBeenCalledTimes(1);
  for (let number = 0; number < 40; number += 1) {
    rerender(["a queued", `b${number} completed`]);
    vi.advanceTimersByTime(250);
  }
  expect(fetched.mock.calls.length).toBeGreaterThanOrEqual(2);
  expect(fetched.mock.calls.length).toBeLessThanOrEqual(4);
});
