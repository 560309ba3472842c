import type { StatusMessage } from "quartapp-status";
import type { Segment, Session } from "../../src/api/sessions";

/** A session that is being transcribed, 7:30 of 10:00. */
export function session(change: Partial<Session> = {}): Session {
  return {
    id: "8f6a1ea6-c5f7-4824-8adb-b9b9a3fa0fa7",
    owner_id: "e40c4dd3-4736-4b97-86d7-8498b829dd8f",
    owner_email: "owner@example.com",
    title: "Garden talk",
    file_name: "garden.wav",
    language: null,
    engine: null,
    size_bytes: 3_874_284,
    duration_s: 600,
    status: "processing",
    stage: "transcribing",
    progress: 75,
    attempt: 1,
    segments: 42,
    error: null,
    has_audio: true,
    created_at: "2026-01-15T10:20:00Z",
    started_at: "2026-01-15T10:25:00Z",
    finished_at: null,
    queue_position: null,
    estimated_start: null,
    ...change,
  };
}

/** The latest message about it. */
export function message(change: Partial<StatusMessage> = {}): StatusMessage {
  return {
    session_id: "8f6a1ea6-c5f7-4824-8adb-b9b9a3fa0fa7",
    id: 1_795_222_584_197_110,
    prev_id: 1_795_222_584_009_001,
    attempt: 1,
    status: "processing",
    stage: "transcribing",
    progress: 75,
    progress_kind: "measured",
    message: "Transcribing… 7:30 of 10:00",
    timestamp: "2026-01-15T10:30:00.123Z",
    duration_processed: 450,
    duration_total: 600,
    estimated_completion: "2026-01-15T10:32:00Z",
    processing_speed: 2.1,
    segments: 42,
    error: null,
    ...change,
  };
}

/** A piece of the transcript; its words take a second each. */
export function segment(idx: number, startS: number, text: string): Segment {
  const words = text.split(" ").map((word, place) => ({
    text: word.replace(/\W/g, ""),
    start_s: startS + place,
    end_s: startS + place + 1,
    confidence: null,
  }));
  return { idx, start_s: startS, end_s: startS + words.length, text, words };
}
