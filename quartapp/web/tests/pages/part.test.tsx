import { act, cleanup, render, screen } from "@testing-library/react";
import { Suspense } from "react";
import { MemoryRouter } from "react-router";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Boundary } from "../../src/components/Boundary";
import { part } from "../../src/components/part";

const Broken = () => {
  throw new Error("broken");
};
const found = { default: () => <p>Here</p> };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  cleanup();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("without a network a part is waited for", async () => {
  const load = vi.fn().mockRejectedValue(new TypeError("Failed to fetch"));
  const ask = vi.fn().mockRejectedValue(new TypeError("Failed to fetch"));
  vi.stubGlobal("fetch", ask);
  const Part = part(load);
  await act(async () => {
    render(
      <Suspense fallback="Waiting">
        <Part />
      </Suspense>,
    );
    await vi.advanceTimersByTimeAsync(5000);
  });
  expect(screen.getByText("Waiting")).toBeDefined();
  load.mockResolvedValue(found);
  await act(() => vi.advanceTimersByTimeAsync(2000));
  expect(screen.getByText("Here")).toBeDefined();
});

test("a page that breaks says so, and the next one is shown", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  const { rerender } = render(
    <Boundary at="/account">
      <Broken />
    </Boundary>,
    { wrapper: MemoryRouter },
  );
  expect(screen.getByText("Something unexpected went wrong on this page.")).toBeDefined();
  rerender(<Boundary at="/">{found.default()}</Boundary>);
  expect(screen.getByText("Here")).toBeDefined();
});
