import { QueryObserver } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Problem, unreachable } from "../../src/api/problem";
import { queryClient } from "../../src/api/queryClient";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  queryClient.clear();
  vi.useRealTimers();
});

function observed(queryFn: () => Promise<string>): {
  readonly now: () => { readonly status: string; readonly data: string | undefined };
} {
  const observer = new QueryObserver(queryClient, { queryKey: ["something"], queryFn });
  observer.subscribe(() => {});
  return { now: () => observer.getCurrentResult() };
}

it("shows what it could not load as soon as the server is back, without being asked", async () => {
  let away = true;
  const seen = observed(async () => {
    if (away) throw unreachable();
    return "here";
  });
  await vi.advanceTimersByTimeAsync(30_000);
  expect(seen.now().status).toBe("error");
  away = false;
  await vi.advanceTimersByTimeAsync(15_000);
  expect(seen.now()).toMatchObject({ status: "success", data: "here" });
});

it("does not ask again for what was refused", async () => {
  const ask = vi.fn(async () => {
    throw new Problem(404, "not_found", "There is no such session.");
  });
  const seen = observed(ask);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(seen.now().status).toBe("error");
  expect(ask).toHaveBeenCalledTimes(1);
});
