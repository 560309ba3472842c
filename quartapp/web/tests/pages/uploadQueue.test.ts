// @vitest-environment node
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Problem } from "../../src/api/problem";
import { UploadQueue } from "../../src/uploads/queue";
import type { OnSent, Session, UploadRequest } from "../../src/uploads/transfer";
import { session } from "./people";

/** Each request, in order, with the means to answer it. */
class Wire {
  readonly requests: Array<{
    upload: UploadRequest;
    sent: OnSent;
    answer: (session: Session) => void;
    fail: (problem: Problem) => void;
    isStopped: boolean;
  }> = [];

  send = (upload: UploadRequest, sent: OnSent) => {
    let stop = () => {};
    const done = new Promise<Session>((answer, fail) => {
      const request = { upload, sent, answer, fail, isStopped: false };
      this.requests.push(request);
      stop = () => {
        request.isStopped = true;
        fail(new Problem(0, "stopped", "stopped"));
      };
    });
    return { done, stop };
  };

  at(index: number) {
    const request = this.requests[index];
    if (!request) throw new Error(`only ${this.requests.length} requests`);
    return request;
  }
}

/** A file that is read at once. */
function file(name: string, size = 1000): File {
  const made = new File([new Uint8Array(size)], name);
  const read = { arrayBuffer: () => Promise.resolve(new ArrayBuffer(1)) };
  return Object.assign(made, { slice: () => read as Blob });
}

const away = () => new Problem(0, "unreachable", "The server cannot be reached.");

let wire: Wire;
let queue: UploadQueue;

beforeEach(() => {
  vi.useFakeTimers();
  wire = new Wire();
  queue = new UploadQueue(wire.send);
});
afterEach(() => vi.useRealTimers());

/** Lets promises settle; no time passes. */
const settle = () => vi.advanceTimersByTimeAsync(0);
const phases = () => queue.snapshot().map(({ phase }) => phase);
const only = () => {
  const [upload] = queue.snapshot();
  if (!upload) throw new Error("the queue is empty");
  return upload;
};

async function sending(...names: string[]) {
  queue.choose(
    names.map((name) => file(name)),
    null,
  );
  queue.start();
  await settle();
}

test("nothing is sent before one says so, and then under the title it was given", async () => {
  queue.choose([file("garden.talk.wav")], null);
  await settle();
  expect(wire.requests).toHaveLength(0);
  expect(only().title).toBe("garden.talk");
  queue.change(only().id, { title: "Garden", language: "en", patientId: "p" });
  queue.start();
  await settle();
  expect(wire.at(0).upload).toMatchObject({ title: "Garden", language: "en", patientId: "p" });
});

test("files chosen later share what all before them share, and nothing else", async () => {
  queue.choose([file("a.wav")], null);
  queue.change(only().id, { language: "de", patientId: "p" });
  queue.choose([file("b.wav")], null);
  queue.choose([file("c.wav")], "q");
  queue.choose([file("d.wav")], null);
  expect(queue.snapshot().map(({ language, patientId }) => [language, patientId])).toEqual([
    ["de", "p"],
    ["de", "p"],
    ["de", "q"],
    ["de", null],
  ]);
});

test("two files go at a time, in the order they were chosen", async () => {
  await sending("a.wav", "b.wav", "c.wav");
  expect(phases()).toEqual(["sending", "sending", "waiting"]);
  wire.at(1).answer(session());
  await settle();
  expect(phases()).toEqual(["sending", "done", "sending"]);
  expect(wire.requests.map(({ upload }) => upload.file.name)).toEqual(["a.wav", "b.wav", "c.wav"]);
});

test("AC-2.3.6 it tells how much is sent, and that the server looks at it then", async () => {
  await sending("a.wav");
  wire.at(0).sent(400, 1200);
  expect(only()).toMatchObject({ phase: "sending", sentBytes: 400 });
  wire.at(0).sent(1200, 1200);
  expect(only()).toMatchObject({ phase: "checking", sentBytes: 1000 });
});

test.each([0, 408, 429, 500, 502, 503])(
  "after %s the same file goes again by itself, with the same key",
  async (status) => {
    await sending("a.wav");
    wire.at(0).fail(new Problem(status, "any", "Not now."));
    await settle();
    expect(only().phase).toBe("pausing");
    await vi.advanceTimersByTimeAsync(1000);
    expect(wire.requests).toHaveLength(2);
    expect(wire.at(1).upload.idempotencyKey).toBe(wire.at(0).upload.idempotencyKey);
    expect(wire.at(1).upload.file).toBe(wire.at(0).upload.file);
    wire.at(1).answer(session());
    await settle();
    expect(phases()).toEqual(["done"]);
  },
);

test("two files have two keys", async () => {
  await sending("a.wav", "b.wav");
  expect(wire.at(0).upload.idempotencyKey).not.toBe(wire.at(1).upload.idempotencyKey);
});

test("waits grow, to half a minute at most, and are never shorter than the server asks", async () => {
  await sending("a.wav");
  const waits: number[] = [];
  for (let turn = 0; turn < 8; turn += 1) {
    wire.at(turn).fail(away());
    await settle();
    waits.push((only().retryAtMs ?? 0) - Date.now());
    await vi.advanceTimersByTimeAsync(30_000);
  }
  expect(waits[0]).toBeLessThanOrEqual(1000);
  expect(waits[3]).toBeGreaterThanOrEqual(4000);
  for (const wait of waits) expect(wait).toBeLessThanOrEqual(30_000);
  wire.at(8).fail(new Problem(429, "rate_limited", "Too many.", 45_000));
  await settle();
  await vi.advanceTimersByTimeAsync(44_000);
  expect(wire.requests).toHaveLength(9);
  await vi.advanceTimersByTimeAsync(1001);
  expect(wire.requests).toHaveLength(10);
});

test("when the network is back it does not wait", async () => {
  await sending("a.wav");
  for (const turn of [0, 1, 2, 3, 4]) {
    wire.at(turn).fail(away());
    await settle();
    queue.resume();
    await settle();
  }
  expect(wire.requests).toHaveLength(6);
});

test("a try that was asked for takes the place of the one that was planned", async () => {
  await sending("a.wav");
  wire.at(0).fail(away());
  await settle();
  queue.retry(only().id);
  await settle();
  expect(only().phase).toBe("sending");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(wire.requests).toHaveLength(2);
  expect(wire.at(1).isStopped).toBe(false);
});

test.each([
  [413, "too_large"],
  [415, "not_audio"],
  [422, "language_unsupported"],
  [507, "storage_full"],
])("a refusal by %s is not tried again, and holds up no other", async (status, code) => {
  await sending("a.wav", "b.wav", "c.wav");
  wire.at(0).fail(new Problem(status, code, "No."));
  await settle();
  expect(phases()).toEqual(["refused", "sending", "sending"]);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(wire.requests).toHaveLength(3);
  expect(queue.snapshot()[0]?.problem?.code).toBe(code);
});

test("a refused file can be decided about again", async () => {
  await sending("a.wav");
  wire.at(0).fail(new Problem(422, "language_unsupported", "No."));
  await settle();
  queue.reconsider(only().id);
  expect(only()).toMatchObject({ phase: "chosen", problem: null });
  queue.start();
  await settle();
  expect(wire.requests).toHaveLength(2);
});

test("a file beyond the server's limit is refused without being sent", async () => {
  queue.limit(999);
  await sending("a.wav");
  expect(only().phase).toBe("refused");
  expect(only().problem?.code).toBe("too_large");
  expect(wire.requests).toHaveLength(0);
});

test("an empty file, or one that was moved, is refused and not taken for a broken network", async () => {
  const moved = file("moved.wav");
  vi.spyOn(moved, "slice").mockReturnValue({
    arrayBuffer: () => Promise.reject(new DOMException("gone", "NotFoundError")),
  } as unknown as Blob);
  queue.choose([file("empty.wav", 0), moved], null);
  queue.start();
  await settle();
  expect(queue.snapshot().map(({ problem }) => problem?.code)).toEqual([
    "empty_file",
    "unreadable_file",
  ]);
  expect(wire.requests).toHaveLength(0);
});

test("a stopped upload is aborted, forgotten, and makes room for the next", async () => {
  await sending("a.wav", "b.wav", "c.wav");
  queue.remove(only().id);
  await settle();
  expect(wire.at(0).isStopped).toBe(true);
  expect(phases()).toEqual(["sending", "sending"]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(wire.requests).toHaveLength(3);
});

test("without a sign-in it tells so once and waits for it", async () => {
  const onSignedOut = vi.fn();
  queue.onSignedOut = onSignedOut;
  await sending("a.wav");
  wire.at(0).fail(new Problem(401, "unauthenticated", "Sign in first."));
  await settle();
  await vi.advanceTimersByTimeAsync(120_000);
  expect(onSignedOut).toHaveBeenCalledOnce();
  expect(wire.requests).toHaveLength(1);
  expect(queue.isUnfinished).toBe(true);
  queue.resume();
  await settle();
  expect(wire.requests).toHaveLength(2);
});

test("leaving the page loses something only while a file is on its way", async () => {
  queue.choose([file("a.wav")], null);
  expect(queue.isUnfinished).toBe(false);
  queue.start();
  expect(queue.isUnfinished).toBe(true);
  await settle();
  wire.at(0).answer(session());
  await settle();
  expect(queue.isUnfinished).toBe(false);
});
