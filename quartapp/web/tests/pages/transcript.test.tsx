import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { NOWHERE, type Place } from "../../src/pages/session/place";
import { Transcript } from "../../src/pages/session/Transcript";
import { segment } from "./people";

afterEach(cleanup);

const texts = Array.from({ length: 60 }, (_, idx) =>
  segment(idx, idx * 10, `words of part ${idx}`),
);

const ignored = () => {};

function transcript(place: Place = NOWHERE, onSeek: ((timeS: number) => void) | null = ignored) {
  return (
    <Transcript
      segments={texts}
      language="en"
      isGrowing={false}
      isPlaying={false}
      place={place}
      onSeek={onSeek}
    />
  );
}

test("every segment stands there with its time, which plays from it", () => {
  const onSeek = vi.fn();
  render(transcript(NOWHERE, onSeek));
  const times = screen.getAllByRole("button", { name: /^Play from/ });
  expect(times).toHaveLength(60);
  fireEvent.click(screen.getByRole("button", { name: "Play from 1:10" }));
  expect(onSeek).toHaveBeenCalledWith(70);
});

test("the segment and the word that are heard are marked, and no others", () => {
  const { rerender } = render(transcript({ segment: 30, word: 2 }));
  expect(document.querySelectorAll("[data-current]")).toHaveLength(1);
  expect(document.querySelector("[data-current]")?.textContent).toContain("part 30");
  expect(document.querySelector("mark")?.textContent).toBe("part");
  rerender(transcript({ segment: 30, word: 0 }));
  expect(document.querySelector("mark")?.textContent).toBe("words");
  rerender(transcript({ segment: 31, word: 3 }));
  expect(document.querySelector("mark")?.textContent).toBe("31");
  expect(document.querySelectorAll("mark")).toHaveLength(1);
});

test("Tab reaches one time, arrows the others", () => {
  render(transcript({ segment: 30, word: 0 }));
  const times = screen.getAllByRole<HTMLButtonElement>("button", { name: /^Play from/ });
  expect(times.filter(({ tabIndex }) => tabIndex === 0)).toEqual([times[30]]);
  times[30]?.focus();
  const press = (key: string) => fireEvent.keyDown(document.activeElement as Element, { key });
  press("ArrowDown");
  expect(document.activeElement).toBe(times[31]);
  press("Home");
  press("ArrowUp");
  expect(document.activeElement).toBe(times[0]);
  press("End");
  expect(document.activeElement).toBe(times[59]);
});

test("without a recording the times play nothing", () => {
  render(transcript(NOWHERE, null));
  expect(screen.queryAllByRole("button")).toEqual([]);
  expect(screen.getByText("1:10")).toBeTruthy();
});
