import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, test } from "vitest";
import { Downloads } from "../../src/pages/session/Downloads";
import { session } from "./people";

afterEach(cleanup);

const names = () => screen.getAllByRole("link").map(({ textContent }) => textContent);

test("AC-2.3.3 every form of the text is there, and the recording while it is kept", () => {
  const texts = ["Text", "Subtitles (SRT)", "Subtitles (VTT)", "JSON with times"];
  const { rerender } = render(<Downloads session={session({ has_audio: true })} />);
  expect(names()).toEqual([...texts, "Recording"]);
  rerender(<Downloads session={session({ has_audio: false })} />);
  expect(names()).toEqual(texts);
});
