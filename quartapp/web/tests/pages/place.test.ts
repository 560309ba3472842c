// @vitest-environment node
import { expect, test } from "vitest";
import { NOWHERE, placeAt } from "../../src/pages/session/place";
import { timeAt, wordSpans } from "../../src/pages/session/wordSpans";
import { segment } from "./people";

const segments = [segment(0, 2, "Good morning"), segment(1, 10, "and welcome, everybody")];

test.each([
  [0, NOWHERE],
  [2, { segment: 0, word: 0 }],
  [3.5, { segment: 0, word: 1 }],
  [7, { segment: 0, word: 1 }],
  [10, { segment: 1, word: 0 }],
  [600, { segment: 1, word: 2 }],
])("at %s s", (timeS, place) => {
  expect(placeAt(segments, timeS)).toEqual(place);
});

test("words are found in text with marks and capitals, each after the one before", () => {
  const { text } = segment(0, 0, "The mill, the Mill!");
  const spans = wordSpans(segment(0, 0, text));
  expect(spans.map(({ start, end }) => text.slice(start, end))).toEqual([
    "The",
    "mill",
    "the",
    "Mill",
  ]);
});

test("a word that the text does not have is left out", () => {
  const spoken = segment(0, 0, "one two");
  const written = { ...spoken, text: "1 two" };
  expect(wordSpans(written)).toEqual([{ start: 2, end: 5, word: 1 }]);
});

test("a place in the text is a time in the recording", () => {
  const [, second] = segments;
  if (!second) throw new Error("no second segment");
  expect(timeAt(second, 0)).toBe(10);
  expect(timeAt(second, "and wel".length)).toBe(11);
  expect(timeAt({ ...second, words: [] }, 5)).toBe(10);
});
