import { act, cleanup, renderHook } from "@testing-library/react";
import { MemoryRouter, useNavigate } from "react-router";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { useFilter } from "../../src/pages/recordings/useFilter";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

const useBoth = () => ({ ...useFilter(null), go: useNavigate() });

test("what is typed is searched for when it has settled; a link to the list shows all of it", async () => {
  const { result } = renderHook(useBoth, { wrapper: MemoryRouter });
  act(() => result.current.setText("gar"));
  expect(result.current.filter.q).toBe("");
  await act(() => vi.advanceTimersByTimeAsync(300));
  expect(result.current.filter.q).toBe("gar");
  await act(async () => void result.current.go("/"));
  await act(() => vi.advanceTimersByTimeAsync(1000));
  expect(result.current.filter.q).toBe("");
  expect(result.current.text).toBe("");
});
