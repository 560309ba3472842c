import { afterEach, beforeEach, expect, vi } from "vitest";
import {
  type Dispose,
  type SessionState,
  type StatusOptions,
  watchSession,
} from "../../src/status/index";
import {
  latest,
  pass,
  type ScriptedServer,
  SESSION,
  ScriptedEventSource as Source,
  scripted,
  unscripted,
} from "./scripted";

export const STATUS = `/api/v1/sessions/${SESSION}/status`;
export const TRANSCRIPT = `/api/v1/sessions/${SESSION}/transcript.json`;
export const ME = "/api/v1/auth/me";

/** The server that is asked, what is known of the session, and what ends its following. */
export let server: ScriptedServer;
export let state: SessionState;
export let dispose: Dispose;

/** Each test of the file follows a session whose server answers, and leaves nothing behind. */
export function followInEachTest(): void {
  beforeEach(() => {
    server = scripted();
    server.answers.set(STATUS, latest(1));
  });
  afterEach(async () => {
    dispose();
    await pass(0);
    expectNothingLeft();
    unscripted();
  });
}

export function watchedBy(
  listener: (state: SessionState) => void,
  options: StatusOptions = {},
): void {
  dispose = watchSession(SESSION, listener, options);
}

export async function follow(options: StatusOptions = {}): Promise<void> {
  watchedBy((next) => {
    state = next;
  }, options);
  await pass(0);
}

/** Follows, and the stream is live. */
export async function live(options: StatusOptions = {}): Promise<void> {
  await follow(options);
  Source.last.hello();
  await pass(20);
  expect(state.connection).toBe("live");
}

/** Nothing is left of what was followed. */
export function expectNothingLeft(): void {
  expect(Source.open).toEqual([]);
  expect(server.open).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
}
