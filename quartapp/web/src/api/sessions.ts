import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import type { Status } from "../words/status";
import { answered, api, type Schemas } from "./client";
import { Problem } from "./problem";

export type Session = Schemas["SessionBody"];
export type Segment = Schemas["SegmentBody"];

/** Which sessions a list shows. */
export interface SessionFilter {
  /** Part of the title or the file name; empty for all. */
  readonly q: string;
  readonly status: Status | null;
  readonly ownerId: string | null;
}

const PAGE = 30;
const HISTORY_PAGE = 200;

const at = (sessionId: string) => ({ params: { path: { session_id: sessionId } } });

/** Every list of sessions, whatever its filter. */
export const LISTS = ["sessions"] as const;

export const sessionListQuery = (filter: SessionFilter) =>
  infiniteQueryOptions({
    queryKey: [...LISTS, filter],
    queryFn: ({ pageParam, signal }) => getSessions(filter, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: ({ next_cursor }) => next_cursor,
  });

function getSessions(
  { q, status, ownerId }: SessionFilter,
  cursor: string | null,
  signal: AbortSignal,
) {
  const query = {
    limit: PAGE,
    ...(q && { q }),
    ...(status && { status }),
    ...(ownerId && { owner_id: ownerId }),
    ...(cursor && { cursor }),
  };
  return answered(api.GET("/api/v1/sessions", { params: { query }, signal }));
}

export const sessionQuery = (sessionId: string) =>
  queryOptions({
    queryKey: ["session", sessionId],
    queryFn: () => answered(api.GET("/api/v1/sessions/{session_id}", at(sessionId))),
  });

/** The latest status message, for a session that is not followed. */
export const statusQuery = (sessionId: string) =>
  queryOptions({
    queryKey: ["session", sessionId, "status"],
    queryFn: () => answered(api.GET("/api/v1/sessions/{session_id}/status", at(sessionId))),
  });

/** The text there is; empty while there is none. */
export const transcriptQuery = (sessionId: string) =>
  queryOptions({
    queryKey: ["session", sessionId, "transcript"],
    queryFn: () => getSegments(sessionId),
  });

async function getSegments(sessionId: string): Promise<Segment[]> {
  const path = { session_id: sessionId, form: "json" as const };
  try {
    const call = api.GET("/api/v1/sessions/{session_id}/transcript.{form}", { params: { path } });
    return (await answered(call)).segments;
  } catch (error) {
    if (error instanceof Problem && error.code === "not_ready") return [];
    throw error;
  }
}

export const historyQuery = (sessionId: string) =>
  infiniteQueryOptions({
    queryKey: ["session", sessionId, "history"],
    queryFn: ({ pageParam }) => getHistory(sessionId, pageParam),
    initialPageParam: 0,
    getNextPageParam: ({ next_after }) => next_after,
  });

function getHistory(sessionId: string, after: number) {
  const params = { path: { session_id: sessionId }, query: { after, limit: HISTORY_PAGE } };
  return answered(api.GET("/api/v1/sessions/{session_id}/status/history", { params }));
}

export function cancelSession(sessionId: string): Promise<Session> {
  return answered(api.POST("/api/v1/sessions/{session_id}/cancel", at(sessionId)));
}

export function retrySession(sessionId: string): Promise<Session> {
  return answered(api.POST("/api/v1/sessions/{session_id}/retry", at(sessionId)));
}

/** That it is gone already is no error. */
export async function deleteSession(sessionId: string): Promise<void> {
  try {
    await answered(api.DELETE("/api/v1/sessions/{session_id}", at(sessionId)));
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
  }
}

/** Where one of the results of a session is fetched. */
export function resultUrl(sessionId: string, name: string): string {
  return `/api/v1/sessions/${encodeURIComponent(sessionId)}/${name}`;
}
