import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Dispose, type SessionState, watchSession } from "../../src/status/index";
import { EventStreamParser, type StreamEvent } from "./eventStream";
import resumed from "./recorded/resumed.txt?raw";
import resumedAfter from "./recorded/resumed_after.txt?raw";
import statusText from "./recorded/status.txt?raw";
import transcriptText from "./recorded/transcript.txt?raw";
import whole from "./recorded/whole.txt?raw";
import { pass, ScriptedEventSource as Source, scripted, unscripted } from "./scripted";

/** What polling said of the same session in the end. */
const { queue_position, worker_seen_at, ...finalStatus } = JSON.parse(statusText);
const { segments } = JSON.parse(transcriptText);

let state: SessionState;
let dispose: Dispose;

beforeEach(async () => {
  scripted();
  const { server_time } = JSON.parse(read(whole)[0]?.data ?? "");
  vi.setSystemTime(Date.parse(server_time));
  dispose = watchSession(
    finalStatus.session_id,
    (next) => {
      state = next;
    },
    { segments: true },
  );
  await pass(0);
});

afterEach(() => {
  dispose();
  unscripted();
});

function read(text: string, pieceBytes = 1_000_000): StreamEvent[] {
  const bytes = new TextEncoder().encode(text);
  const parser = new EventStreamParser();
  const events: StreamEvent[] = [];
  for (let from = 0; from < bytes.length; from += pieceBytes) {
    events.push(...parser.push(bytes.subarray(from, from + pieceBytes)));
  }
  return events;
}

function play(events: readonly StreamEvent[]): void {
  for (const { name, data, lastEventId } of events) Source.last.say(name, data, lastEventId);
}

function expectTheEnd(): void {
  expect(state.status).toEqual(finalStatus);
  expect(state.segments).toEqual(segments);
  expect(state.queuePosition).toBe(queue_position);
  expect(state.connection).toBe("closed");
  expect(state.error).toBeNull();
}

describe("a stream as the server sent it", () => {
  it.each([1, 7, 1000, 1_000_000])(
    "says what polling says, in pieces of %i bytes",
    async (size) => {
      play(read(whole, size));
      await pass(20);
      expectTheEnd();
    },
  );

  it("shows progress that never falls and segments that never go", async () => {
    let before = { progress: 0, segments: 0 };
    for (const event of read(whole)) {
      play([event]);
      await pass(20);
      const now = { progress: state.status?.progress ?? 0, segments: state.segments.length };
      expect(now.progress).toBeGreaterThanOrEqual(before.progress);
      expect(now.segments).toBeGreaterThanOrEqual(before.segments);
      before = now;
    }
    expect(before).toEqual({ progress: 100, segments: segments.length });
  });

  it("goes on where it was cut, and nothing is there twice", async () => {
    const events = read(whole);
    const cutAt = events.findIndex(({ lastEventId }) => lastEventId === resumedAfter);
    play(events.slice(0, cutAt + 1));
    await pass(20);
    expect(state.connection).toBe("live");
    Source.last.cut();
    await pass(1000);
    expect(Source.last.url.searchParams.get("last_event_id")).toBe(resumedAfter);
    play(read(resumed));
    await pass(20);
    expectTheEnd();
  });

  it("ends in the same state when parts of it come twice and out of order", async () => {
    const events = read(whole);
    play(events.slice(0, 1));
    for (let next = 2; next < events.length - 1; next += 1) {
      play([next, next - 1, next].map((place) => events[place] as StreamEvent));
    }
    play(events.slice(-1));
    await pass(20);
    expectTheEnd();
  });
});
