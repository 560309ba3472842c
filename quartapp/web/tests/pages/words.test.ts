// @vitest-environment node
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { afterFailure, nextStep } from "../../src/words/nextStep";
import { begins, finishes, remaining, waiting } from "../../src/words/outlook";
import { size } from "../../src/words/size";
import { ago, clock, spoken, timeLeft, timeOfDay } from "../../src/words/time";

const NOW = Date.parse("2026-01-15T10:30:00Z");

test.each([
  [0, "0:00"],
  [65.9, "1:05"],
  [3599, "59:59"],
  [3665, "1:01:05"],
  [-3, "0:00"],
])("%s s on a clock", (seconds, words) => {
  expect(clock(seconds)).toBe(words);
});

test.each([
  [0, "0 seconds"],
  [61, "1 minute 1 second"],
  [3720, "1 hour 2 minutes"],
])("%s s aloud", (seconds, words) => {
  expect(spoken(seconds)).toBe(words);
});

test.each([
  [5, "A few seconds left"],
  [30, "Less than a minute left"],
  [60, "About a minute left"],
  [120, "About 2 minutes left"],
  [3600, "About an hour left"],
  [5400, "About 1.5 hours left"],
])("with %s s to go", (seconds, words) => {
  expect(timeLeft(seconds)).toBe(words);
});

test.each([
  [999, "999 bytes"],
  [123_724, "124 kB"],
  [3_874_284, "3.9 MB"],
  [30_000_000, "30 MB"],
  [2_500_000_000, "2.5 GB"],
])("%s bytes", (bytes, words) => {
  expect(size(bytes)).toBe(words);
});

test("times gone by are coarse, then dates", () => {
  expect(ago("2026-01-15T10:29:50Z", NOW)).toBe("just now");
  expect(ago("2026-01-15T10:25:00Z", NOW)).toBe("5 minutes ago");
  expect(ago("2026-01-15T08:30:00Z", NOW)).toBe("2 hours ago");
  expect(ago("2026-01-14T09:00:00Z", NOW)).toBe("yesterday");
  expect(ago("2026-01-03T09:00:00Z", NOW)).toContain("2026");
});

test("AC-2.2.3 the time left goes by the server's clock, its end by the reader's", () => {
  const completion = "2026-01-15T10:32:00Z";
  const readersClock = NOW - 3_600_000; // an hour slow
  const offset = 3_600_000;
  expect(remaining(completion, readersClock + offset)).toBe("About 2 minutes left");
  const shown = timeOfDay(Date.parse(completion) - offset, readersClock);
  expect(finishes(completion, readersClock + offset, offset)).toBe(`finishes ${shown}`);
});

test("an estimate that has passed is not shown, nor is one that is not there", () => {
  expect(remaining("2026-01-15T10:29:50Z", NOW)).toBe("A few seconds left");
  expect(remaining("2026-01-15T10:29:00Z", NOW)).toBe("");
  expect(finishes("2026-01-15T10:29:50Z", NOW, 0)).toBe("");
  expect(begins("2026-01-15T10:29:50Z", NOW, 0)).toBe("");
  expect(remaining(null, NOW)).toBe("");
});

test("a place in the queue is said in words", () => {
  expect(waiting(1, null, NOW, 0)).toBe("Next in the queue");
  expect(waiting(2, null, NOW, 0)).toBe("1 before it in the queue");
  expect(waiting(8, null, NOW, 0)).toBe("7 before it in the queue");
  expect(waiting(null, null, NOW, 0)).toBe("In the queue");
  expect(waiting(1, "2026-01-15T10:40:00Z", NOW, 0)).toMatch(/^Next in the queue · begins about /);
});

test("AC-2.2.5 for every documented error there is something to do", () => {
  const documented = readFileSync("../../docs/api.md", "utf8");
  const [, list = ""] = /`error\.code` is one of (.*?), or one of those/s.exec(documented) ?? [];
  const codes = [...list.matchAll(/`(\w+)`/g)].map(([, code]) => code as string);
  expect(codes.length).toBeGreaterThan(10);
  const refusals = ["too_large", "not_audio", "no_audio_stream", "empty_audio", "storage_full"];
  for (const code of [...codes, ...refusals]) expect(nextStep(code), code).not.toBe("");
});

test("a failure of an unknown kind has a next step too", () => {
  expect(afterFailure("new_in_the_next_version")).toContain("Try again");
  expect(afterFailure(undefined)).toContain("Try again");
});
