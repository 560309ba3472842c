// @vitest-environment node
import { expect, test } from "vitest";
import { withStatus } from "../../src/api/withStatus";
import { timeline } from "../../src/pages/session/timelineEntries";
import { news } from "../../src/pages/session/useSpokenProgress";
import { message, session } from "./people";

test("the timeline tells beginnings, milestones and ends, and counts the rest", () => {
  let id = 0;
  const progress = [0, 4, 8, 12, 20, 24, 26].map((percent) => {
    id += 1;
    return message({ id, progress: percent, message: `${percent}` });
  });
  const over = message({
    id: 99,
    status: "failed",
    stage: "done",
    progress: 26,
    error: { code: "engine_failed", message: "It broke." },
  });
  const told = timeline([...progress, over]).map(({ words, detail, tone }) => [
    words,
    detail,
    tone,
  ]);
  expect(told).toEqual([
    ["0", "", "plain"],
    ["12", "2 updates before", "plain"],
    ["26", "2 updates before", "plain"],
    ["It broke.", "", "bad"],
  ]);
});

test("AC-1.3.6 another attempt is told in the timeline", () => {
  const told = timeline([
    message({ id: 1 }),
    message({ id: 2, attempt: 2, status: "queued", message: "Waiting for its turn again" }),
  ]);
  expect(told[1]).toMatchObject({ words: "Waiting for its turn again", detail: "attempt 2" });
});

test("those who listen hear of changes and milestones, not of every percent", () => {
  const at = (progress: number) => session({ progress });
  expect(news(at(40), at(49))).toBe("");
  expect(news(at(49), at(51))).toBe("51 %");
  expect(news(at(51), at(51))).toBe("");
  expect(news(at(99), session({ status: "completed", progress: 100 }))).toBe(
    "Garden talk: the transcript is ready.",
  );
  const error = { code: "engine_failed", message: "It broke." };
  expect(news(at(40), session({ status: "failed", error }))).toBe("Garden talk failed. It broke.");
});

test("a message makes a session newer, unless it is of an earlier attempt", () => {
  expect(withStatus(session({ progress: 10 }), message({ progress: 80 })).progress).toBe(80);
  const retried = session({ attempt: 2, status: "queued" });
  expect(withStatus(retried, message({ attempt: 1, status: "failed" })).status).toBe("queued");
});

test("a session that is over is not begun again by a message on its way", () => {
  const over = session({ status: "completed", progress: 100 });
  expect(withStatus(over, message()).status).toBe("completed");
  const again = message({ attempt: 2, status: "queued", progress: 0 });
  expect(withStatus(session({ status: "failed" }), again).status).toBe("queued");
});

test("a place in the queue is forgotten when the work begins", () => {
  const waiting = session({ status: "queued", queue_position: 2, estimated_start: "2026-01-15" });
  expect(withStatus(waiting, message({ status: "queued" })).queue_position).toBe(2);
  const begun = withStatus(waiting, message());
  expect([begun.queue_position, begun.estimated_start]).toEqual([null, null]);
});
